"""What a stream that is open but not read costs the server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import grpc
import numpy as np
from tqdm import tqdm

from bench.callers import Caller, make_request
from bench.servers import Server
from bench.settings import Settings
from bundle.manifest import Manifest

# A caller that takes little ahead of its reads: a stream's writes wait after some 150 messages,
# where they wait after 1,000 by default. The second option keeps the window from growing.
_SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0))
_QUIET_SHARE = 0.05  # of one core: a server that uses less has settled
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Memory:
    """Bytes a further stream costs, from the second ``streams`` of two lots.

    started: how many streams of both lots gave a first token. settled: whether the server
    went quiet; where it did not, streams ran on, and the figure is not of idle ones.
    """

    streams: int
    started: int
    settled: bool
    state_bytes: int
    resident_bytes_per_stream: float
    proportional_bytes_per_stream: float

    @property
    def is_valid(self) -> bool:
        return self.settled and self.started == 2 * self.streams


def state_bytes(manifest: Manifest) -> int:
    """Of one stream's state."""
    return sum(int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in manifest.state)


def measure_memory(server: Server, manifest: Manifest, settings: Settings) -> Memory:
    """``server``: one that has served nothing yet, or its allocator holds pages ready."""
    return asyncio.run(_measure(server, manifest, settings))


async def _measure(server: Server, manifest: Manifest, settings: Settings) -> Memory:
    lots = []
    with tqdm(total=2, desc="memory", unit="lot") as bar:
        async with Caller(server.target, _SMALL_WINDOW) as caller:
            for lot in range(2):
                lots.append(await _open_lot(caller, lot, server, manifest, settings))
                bar.update()
            for call in (call for lot in lots for call in lot.calls):
                call.cancel()
    first, second = lots
    return Memory(
        settings.idle_streams,
        first.started + second.started,
        first.settled and second.settled,
        state_bytes(manifest),
        (second.memory[0] - first.memory[0]) / settings.idle_streams,
        (second.memory[1] - first.memory[1]) / settings.idle_streams,
    )


@dataclass(frozen=True)
class _Lot:
    calls: list[grpc.aio.UnaryStreamCall]
    started: int
    settled: bool
    memory: tuple[int, int]


async def _open_lot(
    caller: Caller, lot: int, server: Server, manifest: Manifest, settings: Settings
) -> _Lot:
    """Open streams, read one message of each, and wait until the server is quiet."""
    deadline = time.perf_counter() + settings.idle_seconds
    tokens, count = manifest.limits["output_tokens"], settings.idle_streams
    calls = [
        caller.generate(make_request(manifest.name, lot * count + i, tokens, one_a_message=True))
        for i in range(count)
    ]
    reads = [asyncio.ensure_future(call.read()) for call in calls]
    done, late = await asyncio.wait(reads, timeout=settings.idle_seconds)
    for read in late:
        read.cancel()
    settled = await _settles(server, deadline)
    return _Lot(calls, len(done), settled, server.memory_bytes())


async def _settles(server: Server, deadline: float) -> bool:
    while time.perf_counter() < deadline:
        before, started = server.cpu_seconds(), time.perf_counter()
        await asyncio.sleep(_LOOK_SECONDS)
        share = (server.cpu_seconds() - before) / (time.perf_counter() - started)
        if share < _QUIET_SHARE:
            return True
    return False
