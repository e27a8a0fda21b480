"""A figure measured through the service, and whether it is what the bundle says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from bundle.manifest import FigureSpec
from evaluation.intervals import Interval, bootstrap_ratio, wilson

# How far a figure may lie from the manifest's: of percent and points, and of everything else.
POINTS, NATS = 0.2, 0.002


@dataclass(frozen=True)
class Judged:
    """name, unit, split: as the manifest's figure. low, high: the 95 % interval, by ``method``."""

    name: str
    value: float
    unit: str
    split: str
    examples: int
    low: float
    high: float
    method: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """A manifest's figure and what was measured of it, None where nothing was."""

    claimed: FigureSpec
    judged: Judged | None

    @property
    def reproduces(self) -> bool:
        if self.judged is None or self.judged.examples != self.claimed.examples:
            return False
        return abs(self.judged.value - self.claimed.value) <= tolerance_of(self.claimed.unit)


def tolerance_of(unit: str) -> float:
    return POINTS if unit == "%" or unit.startswith("points") else NATS


def digits_of(unit: str) -> int:
    """How many digits of a figure are written after the point."""
    return 2 if tolerance_of(unit) == POINTS else 4


def check(claims: Sequence[FigureSpec], judged: Sequence[Judged]) -> list[Checked]:
    """Each claim with the figure of its name and split."""
    found = {(figure.name, figure.split): figure for figure in judged}
    return [Checked(claim, found.get((claim.name, claim.split))) for claim in claims]


def share(claim: FigureSpec, right: Sequence[bool]) -> Judged:
    """Of examples that are right or wrong each by itself, in percent."""
    count = sum(right)
    interval = wilson(count, len(right))
    return _judged(claim, 100 * count / len(right), len(right), interval, 100, "Wilson")


def ratio(
    claim: FigureSpec,
    parts: ArrayLike,
    wholes: ArrayLike,
    examples: int,
    groups: str,
    scale: float = 1.0,
) -> Judged:
    """sum(parts) / sum(wholes), (groups,) each; groups: what each is one of, in the plural."""
    over, under = np.asarray(parts, float), np.asarray(wholes, float)
    interval = bootstrap_ratio(over, under)
    value = scale * over.sum() / under.sum()
    return _judged(claim, float(value), examples, interval, scale, f"bootstrap over {groups}")


def _judged(
    claim: FigureSpec, value: float, examples: int, interval: Interval, scale: float, method: str
) -> Judged:
    low, high = (scale * edge for edge in interval)
    return Judged(claim.name, value, claim.unit, claim.split, examples, low, high, method)
