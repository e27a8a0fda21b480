"""Fields of vectors hidden at random, so that a model learns to do without any of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class FieldDropout:
    """Masking noise (Vincent et al. 2008, section 2.3), of which the amount is drawn too: a vector
    shows a number of its fields that is uniform from 1 to all but one, or a given set of them.

    fields: of a vector. share: of the vectors some of whose fields are hidden. subset: the fields
    that half of these show, and no others; empty: none do so.
    """

    fields: int
    share: float
    subset: tuple[int, ...] = ()

    def shown(self, rows: int, generator: Generator | None = None) -> Tensor:
        """(rows, fields) bool, drawn anew each time"""
        counts = torch.randint(1, max(self.fields, 2), (rows, 1), generator=generator)
        order = torch.rand(rows, self.fields, generator=generator).argsort(dim=1).argsort(dim=1)
        takes_subset, is_whole = torch.rand(2, rows, 1, generator=generator)
        shown = order < counts
        if self.subset:
            only = torch.isin(torch.arange(self.fields), torch.tensor(self.subset))
            shown = torch.where(takes_subset < 0.5, only, shown)
        return shown | (is_whole >= self.share)
