"""Shares of right answers by length, in bins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bin:
    """Lengths from ``low`` to ``high``, both included. right: of ``examples``."""

    low: int
    high: int
    right: int = 0
    examples: int = 0

    @property
    def name(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"

    @property
    def percent(self) -> float | None:
        return 100 * self.right / self.examples if self.examples else None

    @property
    def error(self) -> float:
        """The standard error of the share, in percent."""
        if not self.examples:
            return 0.0
        share = self.right / self.examples
        return 100 * math.sqrt(share * (1 - share) / self.examples)

    @property
    def text(self) -> str:
        return "–" if self.percent is None else f"{self.percent:.1f} ± {self.error:.1f}"


def count_bins(edges: Sequence[int], answers: Iterable[tuple[int, bool]]) -> list[Bin]:
    """edges: the highest length of each bin, rising; the first bin begins at 1.

    answers: (length, whether right) each. What is longer than the last edge is left out.
    """
    answers = list(answers)
    lows = [1, *(edge + 1 for edge in edges[:-1])]
    return [
        _count(low, high, [right for length, right in answers if low <= length <= high])
        for low, high in zip(lows, edges, strict=True)
    ]


def _count(low: int, high: int, right: Sequence[bool]) -> Bin:
    return Bin(low, high, sum(right), len(right))
