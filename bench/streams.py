"""Tokens a second over gRPC: this service, the alternative and the bare step, taking turns."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.callers import Caller, Reading, inter_token_seconds
from bench.loops import BareStep, LoopRound, StepGraph
from bench.medians import alternate, p50_p99
from bench.servers import Server
from bench.settings import PEER_STREAMS, Settings
from bench.stream_loads import Requests, equal_prompts, first_tokens, new_prompts, vectors
from bundle.store import Bundle
from unroll.v1 import unroll_pb2 as pb


@dataclass(frozen=True)
class StreamRound:
    """One server at one number of streams, opened at once.

    server_cpu_us: a token, all of the round. decode_cpu_us: a token, counted once every
    stream has its first. client_cpu_us: what reading a token costs this process.
    """

    tokens_per_second: float
    server_cpu_us: float
    decode_cpu_us: float
    client_cpu_us: float
    first_token_ms_p50: float
    first_token_ms_p99: float
    inter_token_ms_p50: float
    inter_token_ms_p99: float
    tokens_per_message: float


@dataclass(frozen=True)
class StreamRow:
    """Medians of ``rounds``: of a server, or of the bare step at as many rows.

    is_prose: made by the generator, which the bare step is of.
    """

    what: str
    streams: int
    rounds: int
    over_grpc: StreamRound | None
    bare: LoopRound | None
    is_prose: bool = True

    @property
    def tokens_per_second(self) -> float:
        return self._found.tokens_per_second

    @property
    def decode_cpu_us(self) -> float:
        """Of the server or the loop, a token, once every stream has its first."""
        return self.over_grpc.decode_cpu_us if self.over_grpc else self._found.cpu_us

    @property
    def _found(self) -> Any:
        return self.over_grpc or self.bare


@dataclass(frozen=True)
class _Batch:
    """What one batch of streams took; times in seconds, CPU times of all threads."""

    readings: list[Reading]
    wall: float
    server_cpu: float
    decode_cpu: float
    client_cpu: float
    all_began: float


class _Beginning:
    """Notes when the last of ``streams`` has begun, and the server's CPU time then."""

    def __init__(self, server: Server, streams: int) -> None:
        self._server, self._left = server, streams
        self.at = self.cpu = 0.0

    def one_more(self) -> None:
        self._left -= 1
        if not self._left:
            self.at, self.cpu = time.perf_counter(), self._server.cpu_seconds()


async def _batch(caller: Caller, server: Server, requests: Sequence[pb.GenerateRequest]) -> _Batch:
    beginning = _Beginning(server, len(requests))
    client_cpu, server_cpu = time.process_time(), server.cpu_seconds()
    started = time.perf_counter()
    readings = await asyncio.gather(
        *(caller.read(request, beginning.one_more) for request in requests)
    )
    wall, after = time.perf_counter() - started, server.cpu_seconds()
    return _Batch(
        readings,
        wall,
        after - server_cpu,
        after - beginning.cpu,
        time.process_time() - client_cpu,
        beginning.at,
    )


async def _round(
    server: Server, requests: Requests, least_tokens: int, may_end: bool
) -> StreamRound:
    """Batches of streams until that many tokens were requested, at least one."""
    async with Caller(server.target) as caller:
        await caller.read(first_tokens(requests()[0]))  # connects
        batches: list[_Batch] = []
        requested = 0
        while not batches or requested < least_tokens:
            batch = requests()
            batches.append(await _batch(caller, server, batch))
            requested += sum(request.max_tokens for request in batch)
        return _summary(batches, requested, may_end)


def _summary(batches: Sequence[_Batch], requested: int, may_end: bool) -> StreamRound:
    """may_end: whether a stream may end before its last token.

    Raises RuntimeError when the streams did not make the tokens they were requested.
    """
    seen = [(b, r, r.token_arrivals()) for b in batches for r in b.readings]
    made = sum(count for *_, arrivals in seen for _, count in arrivals)
    if made != requested and not (may_end and 0 < made < requested):
        raise RuntimeError(f"{made} tokens came where {requested} were requested")
    later = sum(n for batch, _, arrivals in seen for at, n in arrivals if at > batch.all_began)
    firsts = p50_p99(np.array([reading.first_token_seconds for _, reading, _ in seen]))
    waits = p50_p99(np.concatenate([inter_token_seconds(arrivals) for *_, arrivals in seen]))
    return StreamRound(
        made / sum(batch.wall for batch in batches),
        1e6 * sum(batch.server_cpu for batch in batches) / made,
        1e6 * sum(batch.decode_cpu for batch in batches) / max(later, 1),
        1e6 * sum(batch.client_cpu for batch in batches) / made,
        *firsts,
        *waits,
        made / sum(len(arrivals) for *_, arrivals in seen),
    )


def compare_streams(
    services: Sequence[Server],
    peer: Server,
    graphs: Sequence[StepGraph],
    settings: Settings,
    food: Bundle | None = None,
) -> list[StreamRow]:
    """Every server and the bare step of every precision, at every number of streams.

    At some of them the last service with one token a message, and with equal prompts, as well; and
    the first one with streams of ``food``, a model of vectors that it serves too.
    """
    rows = []
    numbers = itertools.count()  # of prompts and seeds: none comes twice
    for streams in settings.streams:
        contestants = _contestants(services, peer, graphs, settings, streams, numbers)
        foods = of_foods(services[0].what)
        if food and streams in settings.food_streams:
            requests = vectors(food.manifest, streams, numbers)
            contestants[foods] = partial(
                _measured, services[0], requests, streams, settings, may_end=True
            )
        rounds = settings.rounds_of(streams)
        with tqdm(total=rounds * len(contestants), desc=f"{streams} streams", unit="round") as bar:
            for what, found in alternate(contestants, rounds, bar).items():
                over_grpc = found if isinstance(found, StreamRound) else None
                loop = found if isinstance(found, LoopRound) else None
                rows.append(StreamRow(what, streams, rounds, over_grpc, loop, what != foods))
    return rows


def _contestants(
    services: Sequence[Server],
    peer: Server,
    graphs: Sequence[StepGraph],
    settings: Settings,
    streams: int,
    numbers: Iterator[int],
) -> dict[str, Callable[[], StreamRound | LoopRound]]:
    """Those of the generator."""
    model, tokens, last = graphs[0].bundle.manifest.name, settings.tokens, services[-1]
    servers = [*services, peer] if streams <= PEER_STREAMS else services
    prompts = new_prompts(model, streams, tokens, numbers)
    loads = {server.what: (server, prompts) for server in servers}
    if streams in settings.single_streams:
        one_a_message = new_prompts(model, streams, tokens, numbers, one_a_message=True)
        loads[single(last.what)] = (last, one_a_message)
    if streams in settings.cached_streams:
        loads[cached(last.what)] = (last, equal_prompts(model, streams, tokens))
    contestants: dict[str, Callable[[], StreamRound | LoopRound]] = {
        what: partial(_measured, server, requests, streams, settings)
        for what, (server, requests) in loads.items()
    }
    for graph in graphs:
        bare = BareStep(graph, streams)
        contestants[f"bare step {graph.precision}"] = partial(bare.run, settings.loop_seconds)
    return contestants


def single(what: str) -> str:
    """The name of a server's row with one token a message."""
    return f"{what}, one token a message"


def cached(what: str) -> str:
    """The name of a server's row with equal prompts."""
    return f"{what}, equal prompts"


def of_foods(what: str) -> str:
    """The name of a server's row with streams of vectors."""
    return f"{what}, foods of vectors"


def _measured(
    server: Server,
    requests: Requests,
    streams: int,
    settings: Settings,
    may_end: bool = False,
) -> StreamRound:
    # As many tokens whatever each stream makes.
    least_tokens = max(settings.round_tokens, streams * settings.tokens)
    return asyncio.run(_round(server, requests, least_tokens, may_end))
