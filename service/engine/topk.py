"""The k largest of many numbers, ties in favour of the first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def largest(values: Array, count: int) -> Array:
    """values (n,) → the places of the ``count`` largest, the largest first"""
    count = min(count, len(values))
    # Ties go to the lower place, at the edge too.
    edge = np.partition(values, -count)[-count]
    candidates = np.flatnonzero(values >= edge)
    best: Array = candidates[np.argsort(-values[candidates], kind="stable")[:count]]
    return best


def largest_of_each(rows: Array, count: int) -> Array:
    """rows (m, n), n small → the places (m, count) of each row's largest, the largest first"""
    order: Array
    if count == 1:
        order = rows.argmax(axis=1, keepdims=True)
    else:
        order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return order
