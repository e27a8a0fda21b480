"""Summaries of many measurements: medians of rounds, percentiles of waits."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Round = TypeVar("Round")
Seconds = NDArray[np.float64]


def median_round(rounds: Sequence[Round]) -> Round:
    """The median of each number; rounds are dataclasses of floats."""
    kind: Any = type(rounds[0])
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(*(statistics.median(getattr(one, name) for one in rounds) for name in names))


def p50_p99(seconds: Seconds) -> tuple[float, float]:
    """In milliseconds; the value at or above which the rest lies, never one in between."""
    if not len(seconds):
        return 0.0, 0.0
    low, high = np.percentile(seconds, (50, 99), method="higher")
    return 1e3 * float(low), 1e3 * float(high)


def alternate(
    contestants: dict[str, Callable[[], Round]], rounds: int, bar: tqdm
) -> dict[str, Round]:
    """The median round of each; every other round in reverse order.

    So a change of the machine's mood meets all of them.
    """
    found: dict[str, list[Round]] = {what: [] for what in contestants}
    for number in range(rounds):
        order: Iterable[str] = contestants if number % 2 == 0 else reversed(contestants)
        for what in order:
            bar.set_postfix_str(what)
            found[what].append(contestants[what]())
            bar.update()
    return {what: median_round(measured) for what, measured in found.items()}
