"""Fair timings: alternating order, medians, CPU time, which what else runs changes little."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def alternate(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of CPU time of each work, after one round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            seconds = _time(work)
            if number:
                found[name].append(seconds)
    return {name: median(rows) for name, rows in found.items()}


def _time(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
