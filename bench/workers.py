"""Worker processes behind one port: what two carry on two cores against one on one.

The client, the servers and whatever else runs share this machine's cores, so what so many cores
carry is taken from processor time: cores / CPU seconds of each token or request, all processes of
the service counted, the client not. The load grows with the workers: each has as many streams.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import door_loads
from bench.loads import LoadRound, StreamLoad, UnaryLoad
from bench.medians import Spread, spread, take_turns
from bench.servers import Server, start_service
from bench.settings import Settings
from bundle.store import Bundle

STREAMED = "token of Generate"
CALLED = "request of ModelInfer"
COUNTS = (1, 2)
# In the command line of a worker; of the one that is the whole service.
_SEVERAL, _ONE = "-m service.workers", "-m service serve"


@dataclass(frozen=True)
class WorkersRound:
    """front_end_cpu_us: of server_cpu_us, Envoy's and the parent's. busiest_share: of the
    workers' processor time, what the busiest one used; 1 / workers where they share it evenly."""

    per_second: float
    server_cpu_us: float
    client_cpu_us: float
    front_end_cpu_us: float
    busiest_share: float


@dataclass(frozen=True)
class WorkersRow:
    unit: str
    workers: int
    figures: Spread[WorkersRound]


@dataclass(frozen=True)
class Workers:
    """callers: streams, or callers at once, of each worker. resident_bytes, proportional_bytes: of
    all processes, pages of several counted once, and shared out; by the number of workers."""

    rows: tuple[WorkersRow, ...]
    callers: int
    resident_bytes: dict[int, int]
    proportional_bytes: dict[int, int]

    def row(self, unit: str, workers: int) -> WorkersRound | None:
        """The medians."""
        found = (r.figures.median for r in self.rows if (r.unit, r.workers) == (unit, workers))
        return next(found, None)

    def gain(self, unit: str, workers: int = 2) -> float | None:
        """What so many workers carry on as many cores against one on one."""
        several, one = self.row(unit, workers), self.row(unit, 1)
        return workers * one.server_cpu_us / several.server_cpu_us if several and one else None


def measure_workers(
    bundle: Bundle, classifier: Bundle, precision: str, settings: Settings
) -> Workers:
    """precision: of the generator's step."""
    models: Path = bundle.folder.parent.parent
    contestants: dict[tuple[str, int], Callable[[], WorkersRound]] = {}
    resident, proportional = {}, {}
    with ExitStack() as children:
        for count in COUNTS:
            server = children.enter_context(
                start_service(
                    models,
                    precision,
                    device=settings.device,
                    # As many threads an engine, whatever the machine has.
                    arguments=("--workers", str(count), "--threads", "1"),
                    what=f"{count} workers",
                )
            )
            resident[count], proportional[count] = server.ready_bytes, server.memory_bytes()[1]
            callers = settings.door_callers * count
            loads: dict[str, StreamLoad | UnaryLoad] = {
                STREAMED: door_loads.stream(bundle, callers, settings.tokens),
                CALLED: door_loads.infer(classifier, callers),
            }
            for unit, load in loads.items():
                contestants[unit, count] = partial(_round, server, load, settings.door_seconds)
        with tqdm(total=settings.rounds * len(contestants), desc="workers", unit="round") as bar:
            found = take_turns(contestants, settings.rounds, bar)
    rows = (WorkersRow(unit, count, spread(each)) for (unit, count), each in found.items())
    return Workers(tuple(rows), settings.door_callers, resident, proportional)


def _round(server: Server, load: Any, seconds: float) -> WorkersRound:
    before = server.cpu_seconds_by_process()
    found: LoadRound = load.run(server, seconds)
    spent = {
        process: after - before.get(process, 0.0)
        for process, after in server.cpu_seconds_by_process().items()
    }
    # One worker is the process that was started itself; several are its children.
    workers = [s for (_, what), s in spent.items() if _SEVERAL in what]
    workers = workers or [s for (_, what), s in spent.items() if _ONE in what]
    in_workers, all_seconds = sum(workers), sum(spent.values())
    share_in_front = 1 - in_workers / all_seconds if all_seconds else 0.0
    busiest = max(workers) / in_workers if in_workers else 1.0
    return WorkersRound(
        found.per_second,
        found.server_cpu_us,
        found.client_cpu_us,
        share_in_front * found.server_cpu_us,
        busiest,
    )
