"""Summaries of many measurements: medians of rounds, percentiles of waits."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Round = TypeVar("Round")
Name = TypeVar("Name", bound=Hashable)
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Spread(Generic[Round]):
    """The median, the least and the greatest of each number of several rounds."""

    median: Round
    least: Round
    greatest: Round


def median_round(rounds: Sequence[Round]) -> Round:
    """The median of each number; rounds are dataclasses of floats."""
    return _of_each(rounds, statistics.median)


def spread(rounds: Sequence[Round]) -> Spread[Round]:
    """Rounds are dataclasses of floats."""
    return Spread(median_round(rounds), _of_each(rounds, min), _of_each(rounds, max))


def _of_each(rounds: Sequence[Round], summary: Callable[[Iterable[float]], float]) -> Round:
    kind: Any = type(rounds[0])
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(*(summary(getattr(one, name) for one in rounds) for name in names))


def p50_p99(seconds: Seconds) -> tuple[float, float]:
    """In milliseconds; the value at or above which the rest lies, never one in between."""
    if not len(seconds):
        return 0.0, 0.0
    low, high = np.percentile(seconds, (50, 99), method="higher")
    return 1e3 * float(low), 1e3 * float(high)


def alternate(
    contestants: dict[str, Callable[[], Round]], rounds: int, bar: tqdm
) -> dict[str, Round]:
    """The median round of each, taken in turns as take_turns() does."""
    return {
        what: median_round(measured)
        for what, measured in take_turns(contestants, rounds, bar).items()
    }


def take_turns(
    contestants: dict[Name, Callable[[], Round]], rounds: int, bar: tqdm
) -> dict[Name, list[Round]]:
    """All rounds of each; every other round in reverse order.

    So a change of the machine's mood meets all of them.
    """
    found: dict[Name, list[Round]] = {what: [] for what in contestants}
    for number in range(rounds):
        order: Iterable[Name] = contestants if number % 2 == 0 else reversed(contestants)
        for what in order:
            bar.set_postfix_str(str(what))
            found[what].append(contestants[what]())
            bar.update()
    return found
