"""Tokens a second over gRPC: this service, the alternative and the bare step, taking turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.callers import Caller, Reading, inter_token_seconds, make_request
from bench.loops import BareStep, LoopRound, StepGraph
from bench.medians import alternate, p50_p99
from bench.servers import Server
from bench.settings import PEER_STREAMS, Settings
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
    """Medians of ``rounds``: of a server, or of the bare step at as many rows."""

    what: str
    streams: int
    rounds: int
    over_grpc: StreamRound | None
    bare: LoopRound | None

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
    server: Server, model: str, streams: int, settings: Settings, one_a_message: bool
) -> StreamRound:
    batches = max(1, settings.round_tokens // (streams * settings.tokens))
    requests = [
        make_request(model, seed, settings.tokens, one_a_message=one_a_message)
        for seed in range(streams)
    ]
    async with Caller(server.target) as caller:
        await caller.read(make_request(model, 0, 4))  # connects
        return _summary(
            [await _batch(caller, server, requests) for _ in range(batches)],
            batches * streams * settings.tokens,
        )


def _summary(batches: Sequence[_Batch], expected: int) -> StreamRound:
    """Raises RuntimeError when the streams did not make the tokens they were requested."""
    seen = [(b, r, r.token_arrivals()) for b in batches for r in b.readings]
    made = sum(count for *_, arrivals in seen for _, count in arrivals)
    if made != expected:
        raise RuntimeError(f"{made} tokens came where {expected} were requested")
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
    services: Sequence[Server], peer: Server, graphs: Sequence[StepGraph], settings: Settings
) -> list[StreamRow]:
    """Every server and the bare step of every precision, at every number of streams.

    The last service with one token a message as well, at some of them.
    """
    model, rows = graphs[0].bundle.manifest.name, []
    for streams in settings.streams:
        servers = [*services, peer] if streams <= PEER_STREAMS else services
        rounds = settings.rounds_of(streams)
        contestants: dict[str, Callable[[], StreamRound | LoopRound]] = {
            server.what: partial(_measured, server, model, streams, settings) for server in servers
        }
        if streams in settings.single_streams:
            contestants[single(services[-1].what)] = partial(
                _measured, services[-1], model, streams, settings, one_a_message=True
            )
        for graph in graphs:
            bare = BareStep(graph, streams)
            contestants[f"bare step {graph.precision}"] = partial(bare.run, settings.loop_seconds)
        with tqdm(total=rounds * len(contestants), desc=f"{streams} streams", unit="round") as bar:
            for what, found in alternate(contestants, rounds, bar).items():
                over_grpc = found if isinstance(found, StreamRound) else None
                loop = found if isinstance(found, LoopRound) else None
                rows.append(StreamRow(what, streams, rounds, over_grpc, loop))
    return rows


def single(what: str) -> str:
    """The name of a server's row with one token a message."""
    return f"{what}, one token a message"


def _measured(
    server: Server, model: str, streams: int, settings: Settings, one_a_message: bool = False
) -> StreamRound:
    return asyncio.run(_round(server, model, streams, settings, one_a_message))
