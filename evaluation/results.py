"""A figure measured through the service, and whether it is what the bundle says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from bundle.manifest import FigureSpec
from training.held_out import FigureName
from training.measurements import Measurement

# How far a figure may lie from the manifest's: of percent and points, and of everything else.
POINTS, NATS = 0.2, 0.002


class Found(NamedTuple):
    """A figure that was measured; None where it was claimed and was not."""

    figure: FigureName
    measured: Measurement | None


@dataclass(frozen=True)
class Result:
    """A manifest's figure and what was measured of it, None where nothing was."""

    claimed: FigureSpec
    measured: Measurement | None

    @property
    def found(self) -> Found:
        claim = self.claimed
        return Found(FigureName(claim.name, claim.unit, claim.split), self.measured)

    @property
    def reproduces(self) -> bool:
        if self.measured is None or self.measured.examples != self.claimed.examples:
            return False
        return abs(self.measured.value - self.claimed.value) <= tolerance_of(self.claimed.unit)


@dataclass(frozen=True)
class Floor:
    """A figure of the model as something else reaches it. by: what."""

    figure: FigureName
    by: str
    measured: Measurement


def tolerance_of(unit: str) -> float:
    return POINTS if unit == "%" or unit.startswith("points") else NATS


def digits_of(unit: str) -> int:
    """How many digits of a figure are written after the point."""
    return 2 if tolerance_of(unit) == POINTS else 4


def check(claims: Sequence[FigureSpec], measured: Sequence[Measurement]) -> list[Result]:
    """Each claim with the measurement in its place; a claim too many was not measured.

    A bundle of before may claim less than is measured today.
    """
    pairs = zip_longest(claims, measured[: len(claims)])
    return [Result(claim, measurement) for claim, measurement in pairs]
