"""Measures that more than one model is evaluated with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions (Levenshtein)."""
    row = list(range(len(right) + 1))
    for number, symbol in enumerate(left, start=1):
        previous, row[0] = row[0], number
        for column, other in enumerate(right, start=1):
            best = min(row[column] + 1, row[column - 1] + 1, previous + (symbol != other))
            previous, row[column] = row[column], best
    return row[-1]


def overlap_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of the words of ``said``: harmonic mean of precision and recall, each word counted.

    1 for the same words in any order, 0 for none in common.
    """
    common = (Counter(said) & Counter(wanted)).total()
    return 2 * common / (len(said) + len(wanted)) if common else 0.0
