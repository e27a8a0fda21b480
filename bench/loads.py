"""Loads of ready requests over several connections: what a call or a streamed message costs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from bench.servers import Server

CONNECTIONS = 8
# Channels of one process share connections unless an option says otherwise.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)

Answers = Sequence[bytes]


@dataclass(frozen=True)
class LoadRound:
    """Of calls, texts, messages or tokens: how many a second, and CPU time of each.

    server_cpu_us: all processes of the server. client_cpu_us: this process, the caller.
    """

    per_second: float
    server_cpu_us: float
    client_cpu_us: float


@dataclass(frozen=True)
class UnaryLoad:
    """Callers that each send their next request when the last one was answered.

    requests: as bytes, sent in turn. units: what a request counts for, such as its texts.
    check: raises RuntimeError for a wrong answer; it sees one of each connection.
    """

    path: str
    requests: Sequence[bytes]
    callers: int
    units: int
    check: Callable[[bytes], None]

    def run(self, server: Server, seconds: float) -> LoadRound:
        return asyncio.run(self._run(server, seconds))

    async def _run(self, server: Server, seconds: float) -> LoadRound:
        turn = itertools.cycle(self.requests)
        async with AsyncExitStack() as stack:
            methods = [
                channel.unary_unary(self.path) for channel in await _connect(stack, server.target)
            ]
            for method in methods:
                self.check(await method(next(turn)))
            clocks = _Clocks(server)
            until = time.perf_counter() + seconds
            counts = await asyncio.gather(
                *(
                    _call(methods[number % CONNECTIONS], turn, until)
                    for number in range(self.callers)
                )
            )
            return clocks.round(sum(counts) * self.units, clocks.read())


async def _call(method: Any, turn: Iterator[bytes], until: float) -> int:
    """Calls until then, at least one; how many."""
    done = 0
    while not done or time.perf_counter() < until:
        await method(next(turn))
        done += 1
    return done


@dataclass(frozen=True)
class StreamLoad:
    """Streams that are opened at once and read to their end, and then again.

    requests: one a stream, as bytes. count: what a stream's messages count for; raises
    RuntimeError for a stream that is not whole.
    """

    path: str
    requests: Sequence[bytes]
    count: Callable[[Answers], int]

    def run(self, server: Server, seconds: float) -> LoadRound:
        return asyncio.run(self._run(server, seconds))

    async def _run(self, server: Server, seconds: float) -> LoadRound:
        async with AsyncExitStack() as stack:
            # One request and the end of them: a method that takes several sees no difference.
            methods = [
                channel.unary_stream(self.path) for channel in await _connect(stack, server.target)
            ]
            for method in methods:
                await _read(method, self.requests[0])
            clocks = _Clocks(server)
            until = time.perf_counter() + seconds
            streams: list[Answers] = []
            while not streams or time.perf_counter() < until:
                streams += await asyncio.gather(
                    *(
                        _read(methods[number % CONNECTIONS], request)
                        for number, request in enumerate(self.requests)
                    )
                )
            ended = clocks.read()
            return clocks.round(sum(self.count(messages) for messages in streams), ended)


@dataclass(frozen=True)
class EventLoad:
    """As StreamLoad, over HTTP/1.1 and server-sent events: a connection a stream, kept open.

    bodies: one a stream, JSON. count: of a stream's bytes, as StreamLoad's of its messages.
    """

    path: str
    bodies: Sequence[bytes]
    count: Callable[[bytes], int]

    def run(self, server: Server, seconds: float) -> LoadRound:
        return asyncio.run(self._run(server, seconds))

    async def _run(self, server: Server, seconds: float) -> LoadRound:
        host, _, port = server.target.rpartition(":")
        ends = [await asyncio.open_connection(host, int(port)) for _ in self.bodies]
        requests = [self._request(body) for body in self.bodies]
        try:
            await _events(*ends[0], requests[0])
            clocks = _Clocks(server)
            until = time.perf_counter() + seconds
            streams: list[bytes] = []
            while not streams or time.perf_counter() < until:
                streams += await asyncio.gather(
                    *(_events(*end, request) for end, request in zip(ends, requests, strict=True))
                )
            ended = clocks.read()
            return clocks.round(sum(map(self.count, streams)), ended)
        finally:
            for _, writer in ends:
                writer.close()

    def _request(self, body: bytes) -> bytes:
        lines = f"POST {self.path} HTTP/1.1", "host: bench", f"content-length: {len(body)}"
        return "\r\n".join((*lines, "", "")).encode() + body


async def _events(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> bytes:
    """The answer up to the last chunk of its body (RFC 9112, section 7.1)."""
    writer.write(request)
    try:
        return await reader.readuntil(b"\r\n0\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise RuntimeError(f"the stream of events broke off: {error.partial[-200:]!r}") from error


async def _read(method: Any, request: bytes) -> Answers:
    call, messages = method(request), []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


async def _connect(stack: AsyncExitStack, target: str) -> list[grpc.aio.Channel]:
    return [
        await stack.enter_async_context(grpc.aio.insecure_channel(target, _OPTIONS))
        for _ in range(CONNECTIONS)
    ]


class _Clocks:
    """Wall clock, and the CPU times of the server and of this process; from when it is made."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._began = self.read()

    def read(self) -> tuple[float, float, float]:
        return time.perf_counter(), self._server.cpu_seconds(), time.process_time()

    def round(self, units: int, ended: tuple[float, float, float]) -> LoadRound:
        wall, server, client = (b - a for a, b in zip(self._began, ended, strict=True))
        return LoadRound(units / wall, 1e6 * server / units, 1e6 * client / units)
