"""Batches of rows of similar length, so that little of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")


def similar_lengths(
    rows: Sequence[Row], length: Callable[[Row], int], size: int, choose: random.Random
) -> list[list[Row]]:
    """Every row in one batch of at most ``size``; batches and equal rows in random order."""
    order = sorted(rows, key=lambda row: (length(row), choose.random()))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    choose.shuffle(batches)
    return batches
