"""What a model drops while it trains; at evaluation each of these changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class SequenceDropout(nn.Dropout):
    """One mask a sequence: a feature is dropped at every step of a row, or at none.

    Gal and Ghahramani 2016, arXiv:1512.05287.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, time, size), or (batch, size) of one step"""
        if not self.training or x.dim() < 3:
            return super().forward(x)
        return x * super().forward(torch.ones_like(x[:, :1]))


def make_dropout(share: float, one_mask: bool) -> nn.Dropout:
    """one_mask: whether all steps of a sequence share a mask."""
    return SequenceDropout(share) if one_mask else nn.Dropout(share)


def dropped_rows(table: Tensor, share: float) -> Tensor:
    """What the rows of ``table`` (rows, size) are multiplied with, (rows, 1): whole rows go.

    Merity, Keskar and Socher 2017, arXiv:1708.02182, section 4.3.
    """
    return dropout(torch.ones_like(table[:, :1]), share)
