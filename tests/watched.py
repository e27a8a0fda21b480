"""A service that watches its own rows, as a process of its own: python -m tests.watched JSON

JSON: settings of Config, and step_seconds that each decode step takes longer. Rows that belong
to no stream hold NaN where arrays can. The first line out is the port; each line in is
answered by one line of JSON with what was seen of all engines that ever ran, with the resident
memory where it says memory; the end of the input ends the service.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.app import App
from service.config import Config
from service.engine.decode import GenerateEngine
from service.process.gc_tuning import settle
from service.runtime import runners, session_pair, width
from service.serving.worker import EngineThread
from tests.front_ends import with_front_end

# With several threads, every other batch here takes them: what is watched has few rows.
runners.WIDE_ROWS = 2
session_pair.RUNS_BEFORE = 0
_turns = itertools.cycle((True, False))
width.Width.is_wide = lambda _: next(_turns)


# A NaN that no arithmetic makes of other numbers.
_CANARY = np.array(0x7FC0CA11, np.uint32).view(np.float32)
_ENORMOUS = 1e6


class RowWatch:
    """Canaries in the free rows of one engine, and counts of what it does with rows.

    dirty_rows: freed with anything left in them. canaries_read: steps that read a canary in
    a row of the batch, or made a NaN of numbers.
    """

    def __init__(self, engine: GenerateEngine, step_seconds: float) -> None:
        self.engine = engine
        self.allocated = self.freed = self.pauses = self.dirty_rows = self.canaries_read = 0
        sides = engine.slots.sides()
        every = [array for side in sides for kind in (side.inputs, side.outputs)
                 for array in kind.values()]  # fmt: skip
        self.arrays = list({id(array): array for array in every}.values())
        self._watch_rows()
        self._watch_steps(step_seconds)
        for row in range(engine.slots.capacity):
            self._set_canary(row)

    def _watch_rows(self) -> None:
        slots, scheduler = self.engine.slots, self.engine.scheduler
        take, give, pause = slots.take, slots.give, scheduler.pause

        def watched_take(row: int, state: Any) -> None:
            self.allocated += 1
            take(row, state)

        def watched_give(row: int, last: int) -> None:
            self.freed += 1
            give(row, last)
            self.dirty_rows += any(array[last].any() for array in self.arrays)
            self._set_canary(last)

        def watched_pause(stream: Any) -> tuple[int, int]:
            self.pauses += 1
            return pause(stream)

        slots.take, slots.give = watched_take, watched_give
        scheduler.pause = watched_pause

    def _watch_steps(self, step_seconds: float) -> None:
        runner, sides = self.engine.runner, self.engine.slots.sides()
        step = runner.step

        def watched_step(side: int, rows: int) -> None:
            if step_seconds:
                time.sleep(step_seconds)
            inputs, outputs = sides[side].inputs, sides[side].outputs
            self.canaries_read += any(_canaries(a[:rows]) for a in inputs.values())
            wild = self._wild_rows(inputs, rows)
            step(side, rows)
            self.canaries_read += any(
                np.isnan(a[:rows][~wild]).any() for a in outputs.values() if _is_float(a)
            )

        runner.step = watched_step

    def _wild_rows(self, inputs: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.bool_]:
        """Rows that may make a NaN by themselves: their state is a caller's, and enormous."""
        wild = np.zeros(rows, np.bool_)
        for spec in self.engine.model.state:
            state = inputs[spec.name]
            if _is_float(state):
                wild |= ~(np.abs(state[:rows]) < _ENORMOUS).reshape(rows, -1).all(axis=1)
        return wild

    def _set_canary(self, row: int) -> None:
        for array in self.arrays:
            array[row] = _CANARY if _is_float(array) else 0

    def report(self) -> dict[str, Any]:
        scheduler = self.engine.scheduler
        return {
            "capacity": scheduler.capacity,
            "free": scheduler.free_rows,
            "running": len(scheduler.rows) + len(scheduler.begun),
            "waiting": scheduler.queue_length,
            "paused": len(scheduler.paused),
            "allocated": self.allocated,
            "freed": self.freed,
            "pauses": self.pauses,
            "dirty_rows": self.dirty_rows,
            "canaries_read": self.canaries_read,
            "spoilt_rows": self._spoilt_rows(),
        }

    def _spoilt_rows(self) -> int:
        """Free rows that somebody wrote to; read while nothing runs."""
        used = len(self.engine.scheduler.rows)
        return sum(
            any(not (np.isnan(a[row]).all() if _is_float(a) else not a[row].any())
                for a in self.arrays)
            for row in range(used, self.engine.slots.capacity)
        )  # fmt: skip


class EngineWatch:
    """Every engine of the process, whether it runs or has stopped: its rows and its open work.

    step_seconds: that each decode step takes longer.
    """

    def __init__(self, step_seconds: float) -> None:
        self._running: dict[EngineThread, RowWatch | None] = {}
        # By the model's name: what was last seen of those that stopped, added up.
        self._stopped_rows: dict[str, Counter[str]] = {}
        self._stopped_work: Counter[str] = Counter()
        start, stop = EngineThread.start, EngineThread.stop

        def watched_start(thread: EngineThread) -> None:
            engine = thread.engine
            has_rows = isinstance(engine, GenerateEngine)
            self._running[thread] = RowWatch(engine, step_seconds) if has_rows else None
            start(thread)

        def watched_stop(thread: EngineThread, seconds: float | None = None) -> bool:
            has_ended = stop(thread, seconds)
            if thread in self._running:  # it may be stopped twice
                _add(self._stopped_rows, self._stopped_work, thread, self._running.pop(thread))
            return has_ended

        EngineThread.start, EngineThread.stop = watched_start, watched_stop

    def report(self) -> dict[str, Any]:
        """models: of those with rows. open_work: of every model, on all of its engines."""
        rows = {name: Counter(seen) for name, seen in self._stopped_rows.items()}
        work = Counter(self._stopped_work)
        for thread, watch in list(self._running.items()):
            _add(rows, work, thread, watch)
        return {"models": rows, "open_work": work}


def _add(
    rows: dict[str, Counter[str]], work: Counter[str], thread: EngineThread, watch: RowWatch | None
) -> None:
    work[thread.name] += thread.open_work
    if watch is not None:
        rows.setdefault(thread.name, Counter()).update(watch.report())


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"


def _canaries(array: NDArray[Any]) -> bool:
    return _is_float(array) and bool((array.view(np.uint32) == _CANARY.view(np.uint32)).any())


def resident_bytes() -> int:
    """Without garbage, and without free pages that the allocator keeps."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not every C library trims
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def run(settings: dict[str, Any]) -> None:
    step_seconds = settings.pop("step_seconds", 0.0)
    paths = {name: Path(settings.pop(name)) for name in ("models", "resume_keys")}
    free_ports = {"address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    engines = EngineWatch(step_seconds)
    config = Config(device="cpu", grace_seconds=1.0, **free_ports, **paths, **settings)
    app = App(with_front_end(config))
    await app.start()
    settle()
    print(json.dumps({"port": app.front_end.port}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        seen = {**engines.report(), "calls": app.inflight.calls}
        seen["sequences"] = len(app.sequences)
        if line.strip() == "memory":
            seen["resident"] = resident_bytes()
        print(json.dumps(seen), flush=True)
    await app.stop()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
