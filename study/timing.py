"""Fair timings: alternating order, medians, CPU time beside wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float


def alternate(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """The median seconds of each work, after one round that warms up."""
    found: dict[str, list[Seconds]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            seconds = _time(work)
            if number:
                found[name].append(seconds)
    return {
        name: Seconds(median(s.wall for s in rows), median(s.cpu for s in rows))
        for name, rows in found.items()
    }


def _time(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)
