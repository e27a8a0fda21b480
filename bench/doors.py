"""The front door: what each front end of the service costs, beside bare echoes and a peer.

Every server of a comparison gets the same bytes, and they take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from bench import door_loads
from bench.door_loads import BareGraph
from bench.front_ends import ENVOY, FRONT_ENDS, GRPCIO, available_front_ends, start_front_end
from bench.loads import EventLoad, LoadRound, StreamLoad, UnaryLoad
from bench.medians import Spread, spread, take_turns
from bench.peers.pyvoy import start_pyvoy
from bench.peers.triton import start_triton
from bench.servers import Missing, Server
from bench.settings import Settings
from bundle.store import Bundle

# What a row's figures are of.
ECHO_CALL = "echo of a call"
ECHO_MESSAGE = "echo of a streamed message"
INFER = "request of ModelInfer"
CLASSIFY = "text of Classify"
STREAM_INFER = "token of ModelStreamInfer"
GENERATE = "token of Generate"
EVENTS = "token of server-sent events"

BARE_GRAPH = "bare graph"
TRITON = "Triton"

Load = UnaryLoad | StreamLoad | EventLoad
# A row's unit and server.
Row = tuple[str, str]
Start = Callable[[], AbstractContextManager[Server]]


@dataclass(frozen=True)
class DoorRow:
    """unit: what the figures are of. what: the server, a front end by its name."""

    unit: str
    what: str
    figures: Spread[LoadRound]


@dataclass(frozen=True)
class Doors:
    """skipped: servers that cannot run here, and what each lacks.

    callers: of every comparison, streams likewise, but of Classify. precision: of the generator.
    """

    rows: tuple[DoorRow, ...]
    skipped: dict[str, str]
    callers: int
    precision: str

    def row(self, unit: str, what: str) -> LoadRound | None:
        """The medians."""
        found = (r.figures.median for r in self.rows if (r.unit, r.what) == (unit, what))
        return next(found, None)

    def best(self, unit: str) -> LoadRound | None:
        """Of the first of FRONT_ENDS that is there."""
        found = (self.row(unit, front_end) for front_end in FRONT_ENDS)
        return next((row for row in found if row), None)

    def classify_overhead(self) -> float | None:
        """Server CPU a text in requests of many against the bare graph's."""
        ours, bare = self.best(CLASSIFY), self.row(CLASSIFY, BARE_GRAPH)
        return ours.server_cpu_us / bare.server_cpu_us if ours and bare else None

    def events_overhead(self) -> float | None:
        """Server CPU a token over server-sent events against that over gRPC."""
        events, grpc = self.row(EVENTS, ENVOY), self.row(GENERATE, ENVOY)
        return events.server_cpu_us / grpc.server_cpu_us if events and grpc else None

    def envoy_gain(self) -> float | None:
        """Streamed tokens a second with Envoy against those with grpcio."""
        envoy, grpcio = (self.row(STREAM_INFER, name) for name in (ENVOY, GRPCIO))
        return envoy.per_second / grpcio.per_second if envoy and grpcio else None


def measure_doors(bundle: Bundle, classifier: Bundle, precision: str, settings: Settings) -> Doors:
    """precision: of the generator's step; the classifier, which has one alone, is in fp32."""
    run = _Run(settings)
    callers, models = settings.door_callers, bundle.folder.parent.parent
    with ExitStack() as children:
        echoes = run.start(_echoes(), children)
        run.compare(ECHO_CALL, door_loads.echo_call(callers), echoes)
        run.compare(ECHO_MESSAGE, door_loads.echo_stream(callers), echoes)
    with ExitStack() as children:
        front_ends, missing = available_front_ends()
        run.skipped |= missing
        services = [
            children.enter_context(start_front_end(name, models, precision, settings.device))
            for name in front_ends
        ]
        triton = run.start({TRITON: partial(start_triton, classifier)}, children)
        run.compare(INFER, door_loads.infer(classifier, callers), [*services, *triton])
        run.compare(CLASSIFY, door_loads.classify(classifier), services, BareGraph(classifier))
        stream = door_loads.infer_stream(bundle, callers, settings.tokens)
        run.compare(STREAM_INFER, stream, services)
        # grpcio's server speaks gRPC alone.
        over_http = [server for server in services if server.what == ENVOY]
        loads: dict[str, Load] = {
            GENERATE: door_loads.stream(bundle, callers, settings.tokens),
            EVENTS: door_loads.events(bundle, callers, settings.tokens),
        }
        run.compare_loads(loads, over_http)
    return Doors(tuple(run.rows), run.skipped, callers, precision)


class _Run:
    """What was found so far, and what could not be started."""

    def __init__(self, settings: Settings) -> None:
        self.rows: list[DoorRow] = []
        self.skipped: dict[str, str] = {}
        self._rounds, self._seconds = settings.rounds, settings.door_seconds

    def start(self, starts: dict[str, Start], children: ExitStack) -> list[Server]:
        """Those that can run here."""
        servers = []
        for what, start in starts.items():
            try:
                servers.append(children.enter_context(start()))
            except Missing as missing:
                self.skipped[what] = str(missing)
        return servers

    def compare(
        self,
        unit: str,
        load: Load,
        servers: Sequence[Server],
        bare: BareGraph | None = None,
    ) -> None:
        contestants: dict[Row, Callable[[], LoadRound]] = {
            (unit, server.what): partial(load.run, server, self._seconds) for server in servers
        }
        if bare:
            contestants[unit, BARE_GRAPH] = partial(bare.run, self._seconds)
        self._contest(unit, contestants)

    def compare_loads(self, loads: Mapping[str, Load], servers: Sequence[Server]) -> None:
        """As compare(), of several loads by what their figures are of."""
        contestants: dict[Row, Callable[[], LoadRound]] = {
            (unit, server.what): partial(load.run, server, self._seconds)
            for unit, load in loads.items()
            for server in servers
        }
        self._contest(" and ".join(loads), contestants)

    def _contest(self, what: str, contestants: dict[Row, Callable[[], LoadRound]]) -> None:
        with tqdm(total=self._rounds * len(contestants), desc=what, unit="round") as bar:
            found = take_turns(contestants, self._rounds, bar)
        self.rows += [DoorRow(unit, what, spread(rounds)) for (unit, what), rounds in found.items()]


def _echoes() -> dict[str, Start]:
    return {
        "grpc.aio": partial(Server, "grpc.aio", ["bench.peers.echo"]),
        "pyvoy": partial(start_pyvoy, "pyvoy", "bench.peers.echo:app"),
    }
