"""From the start of the process to ready, and what is resident then, with each front end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bench.front_ends import FRONT_ENDS, available_front_ends, start_front_end
from bench.medians import Spread, spread, take_turns
from bundle.manifest import FP32


@dataclass(frozen=True)
class StartRound:
    """resident_bytes: of all processes of the service together, shared pages counted once."""

    seconds: float
    resident_bytes: float


@dataclass(frozen=True)
class StartRow:
    """what: the front end."""

    what: str
    figures: Spread[StartRound]


@dataclass(frozen=True)
class Starts:
    """With every bundle of the folder. skipped: front ends that cannot run here, and why."""

    rows: tuple[StartRow, ...]
    skipped: dict[str, str]

    @property
    def best(self) -> StartRound:
        """The medians of the first of FRONT_ENDS that is there."""
        return min(self.rows, key=lambda row: FRONT_ENDS.index(row.what)).figures.median


def measure_starts(models: Path, starts: int, device: str) -> Starts:
    names, skipped = available_front_ends()
    contestants: dict[str, Callable[[], StartRound]] = {
        name: partial(_start, name, models, device) for name in names
    }
    with tqdm(total=starts * len(names), desc="start", unit="start") as bar:
        found = take_turns(contestants, starts, bar)
    return Starts(tuple(StartRow(what, spread(each)) for what, each in found.items()), skipped)


def _start(name: str, models: Path, device: str) -> StartRound:
    with start_front_end(name, models, FP32, device) as server:
        return StartRound(server.start_seconds, float(server.ready_bytes))
