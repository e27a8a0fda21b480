"""Texts as a predict graph reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.vocabulary import PADDING_ID


def padded(rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """tokens (rows, longest) and lengths (rows,) of rows of token ids."""
    lengths = np.array([len(row) for row in rows], np.int64)
    tokens = np.full((len(rows), int(lengths.max())), PADDING_ID, np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return {"tokens": tokens, "lengths": lengths}
