"""Within Envoy: an ASGI application that hands each call on to the service's process.

Callbacks and no tasks: a call costs here what its events cost. The service sees to everything
else; when it ends, Envoy does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Protocol

from service.envoy.frames import (
    CREDIT_BYTES,
    CREDIT_SHARE,
    PART_BYTES,
    REQUEST_WINDOW,
    RESPONSE_WINDOW,
    FrameReader,
    FrameWriter,
    Kind,
    frame,
    headers_of,
    lines_of,
    parts_of_answer,
)

# The descriptor of the socket, in the environment; and, where several workers are behind it, that
# it brings sockets to them instead of calls' frames (service/envoy/balancer.py).
SOCKET_VARIABLE, WORKERS_VARIABLE = "UNROLL_RELAY_SOCKET", "UNROLL_RELAY_WORKERS"
# Between looks whether the callers of calls that send nothing have left, and how many calls are
# looked at each time: those that wait take turns, and any number of them costs no more. Most calls
# are soon over, and a look costs a tenth of one: those that came since the look before the last are
# left out.
_LOOK_SECONDS, _LOOKS_AT_ONCE = 0.05, 64
# From the last frame to Envoy's end: what it was handed is written meanwhile.
LINGER_SECONDS = 0.2
# Envoy begins to listen once the application has started.
_LISTEN_POLL_SECONDS = 0.01

# What pyvoy logs of a call that is reset, at the end of several lines.
RESET = "the response cannot be finished"

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Scope = dict[str, Any]


class ServiceLost(ConnectionAbortedError):
    """What served a call ended before the call did.

    has_trailers: whether the response that has started ends with trailers; None for one that has
    not.
    """

    def __init__(self, has_trailers: bool | None) -> None:
        super().__init__(RESET)
        self.has_trailers = has_trailers


class _Call:
    """One call between Envoy (receive, send) and the service (frames)."""

    __slots__ = (
        "_credit", "_has_sent", "_has_trailers", "_held", "_is_listening", "_is_read", "_number",
        "_receive", "_relay", "_send", "_sent", "_uncredited", "ended",
    )  # fmt: skip

    def __init__(self, relay: Relay, number: int, receive: Receive, send: Send) -> None:
        self._relay, self._number = relay, number
        self._receive, self._send = receive, send
        self._credit = REQUEST_WINDOW
        # The last part of the response, until it is taken; what came meanwhile; and bytes beyond
        # the last CREDIT.
        self._sent: asyncio.Future[None] | None = None
        self._held: list[bytes] = []
        self._uncredited = 0
        self._has_trailers: bool | None = None  # until the response starts
        self.ended: asyncio.Future[None] = relay.loop.create_future()
        self._is_listening = False  # not while the service must take what it has first
        self._is_read = False  # the whole request
        self._has_sent = False  # since it was last looked for its caller

    # -- the request ---------------------------------------------------------------------------

    def listen(self) -> None:
        self._is_listening = True
        self._next_event().add_done_callback(self._received)

    def _next_event(self) -> asyncio.Future[dict[str, Any]]:
        event = self._receive()
        # Of a request without a body the event is there already, and no future.
        return event if asyncio.isfuture(event) else asyncio.ensure_future(event)

    def _received(self, event: asyncio.Future[dict[str, Any]]) -> None:
        self._is_listening = False
        if event.cancelled() or event.exception() is not None or self.ended.done():
            return
        if event.result()["type"] != "http.request":
            self._leave()
            return
        body = event.result().get("body", b"")
        self._is_read = not event.result().get("more_body", False)
        self._relay.post(frame(self._number, Kind.BODY_END if self._is_read else Kind.BODY, body))
        self._credit -= len(body)
        if self._credit > 0 and not self._is_read:
            self.listen()

    def grant(self, size: int) -> None:
        self._credit += size
        if not (self._is_listening or self._is_read) and self._credit > 0:
            self.listen()

    def look_for_caller(self) -> None:
        """Whether it has left; sending says so too. Called again and again while the call lasts,
        since nothing is received once the request is whole: pyvoy answers at once, and empty."""
        if self._is_lost():
            self._leave()
            return
        if self._is_read and not (self._has_sent or self._is_listening):
            self._is_listening = True
            self._next_event().add_done_callback(self._looked)
        self._has_sent = False

    def _looked(self, event: asyncio.Future[dict[str, Any]]) -> None:
        self._is_listening = False
        if event.cancelled() or event.exception() is not None or self.ended.done():
            return
        if event.result()["type"] != "http.request":
            self._leave()

    def _leave(self) -> None:
        self._relay.post(frame(self._number, Kind.GONE))
        self.ended.set_result(None)

    # -- the response --------------------------------------------------------------------------

    def start(self, payload: bytes) -> None:
        event = _start(payload)
        self._has_trailers = event["trailers"]
        self._put(event)

    def write(self, body: bytes) -> None:
        """A part, with more to come.

        One at a time: what comes before it is taken follows it as one. Nobody is called back for
        a part that is taken before the next one comes, as most are.
        """
        self._has_sent = True
        sent = self._sent
        if self._held:
            self._held.append(body)
        elif sent is not None and not sent.done():
            self._held.append(body)
            sent.add_done_callback(self._go_on)
        elif self._is_lost():
            self._leave()
        else:
            self._write(body, len(body) + PART_BYTES)

    def _write(self, body: bytes, size: int) -> None:
        """size: that it counts for."""
        sent = self._send({"type": "http.response.body", "body": body, "more_body": True})
        # No future for a call that has ended.
        self._sent = sent if isinstance(sent, asyncio.Future) else None
        self._uncredited += size
        if self._uncredited >= CREDIT_SHARE * RESPONSE_WINDOW and self._sent is not None:
            self._sent.add_done_callback(partial(self._give_credit, self._uncredited))
            self._uncredited = 0

    def _go_on(self, sent: asyncio.Future[None]) -> None:
        """With what was held back, if that has not left with the last part."""
        if self.ended.done() or sent.cancelled() or not self._held:
            return
        if self._is_lost():
            self._leave()
            return
        size = len(self._held) * PART_BYTES
        body = self._take_held()
        self._write(body, len(body) + size)

    def _take_held(self) -> bytes:
        held, self._held = self._held, []
        return b"".join(held)

    def _is_lost(self) -> bool:
        """Whether the last part cannot be taken, since the caller has left."""
        sent = self._sent
        return (
            sent is not None
            and sent.done()
            and not sent.cancelled()
            and sent.exception() is not None
        )

    def _give_credit(self, size: int, sent: asyncio.Future[None]) -> None:
        """The caller, or Envoy for it, has taken so much."""
        if sent.cancelled() or sent.exception() is not None or self.ended.done():
            return
        self._relay.post(frame(self._number, Kind.CREDIT, CREDIT_BYTES.pack(size)))

    def write_last(self, body: bytes) -> None:
        if self._held:
            body = self._take_held() + body
        self._put({"type": "http.response.body", "body": body, "more_body": False})
        if not self._has_trailers:
            self.end()

    def answer(self, payload: bytes) -> None:
        """All of it; what ends a body is taken at once."""
        start, body, trailers = parts_of_answer(payload)
        self._put(_start(start))
        self._put({"type": "http.response.body", "body": body, "more_body": False})
        self.end_with_trailers(trailers)

    def end_with_trailers(self, payload: bytes) -> None:
        self._put(_trailers(payload))
        self.end()

    def _put(self, event: dict[str, Any]) -> None:
        """What is taken at once: all but parts with more to come."""
        self._has_sent = True
        self._send(event)

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def reset(self) -> None:
        self._fail(ConnectionAbortedError(RESET))

    def lose(self) -> None:
        """Nobody serves it any more."""
        self._fail(ServiceLost(self._has_trailers))

    def _fail(self, error: ConnectionAbortedError) -> None:
        if self.ended.done():
            return
        if self._held:
            self._write(self._take_held(), 0)
        self.ended.set_exception(error)

    def close(self) -> None:
        """It has ended; whether the last part was taken, nobody asks any more."""
        if self._sent is not None:
            self._sent.add_done_callback(_forgive)


def _forgive(sent: asyncio.Future[None]) -> None:
    """What it failed with was seen: nothing is logged of it."""
    if not sent.cancelled():
        sent.exception()


# Most responses begin and end alike.


@lru_cache(256)
def _start(payload: bytes) -> dict[str, Any]:
    parts = payload.split(b"\n")
    return {
        "type": "http.response.start",
        "status": int(parts[0]),
        "headers": headers_of(parts, 2),
        "trailers": parts[1] == b"1",
    }


@lru_cache(256)
def _trailers(payload: bytes) -> dict[str, Any]:
    headers = headers_of(payload.split(b"\n"), 0) if payload else []
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": False}


class Relay(asyncio.Protocol):
    """All calls of one service, over one socket.

    ended: called once the service has ended, or is about to.
    """

    def __init__(self, ended: Callable[[], object]) -> None:
        self.loop = asyncio.get_running_loop()
        self.calls: dict[int, _Call] = {}
        self._ended = ended
        self._last = 0
        self._reader, self._writer = FrameReader(), FrameWriter(self.loop)
        self.post = self._writer.post
        self._turns: deque[_Call] = deque()  # to be looked at
        # Since the last look, and between that and the one before.
        self._new: list[_Call] = []
        self._young: list[_Call] = []
        self._is_looking = False

    def _look(self) -> None:
        """For the callers of calls, again and again while there are any."""
        looked = 0
        self._turns.extend(self._young)
        self._young, self._new = self._new, []
        for _ in range(len(self._turns)):
            call = self._turns.popleft()
            if call.ended.done():
                continue
            call.look_for_caller()
            self._turns.append(call)
            looked += 1
            if looked == _LOOKS_AT_ONCE:
                break
        if self._turns or self._young:
            self.loop.call_later(_LOOK_SECONDS, self._look)
        else:
            self._is_looking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._writer.connect(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended()

    def data_received(self, data: bytes) -> None:
        for number, kind, payload in self._reader.feed(data):
            if (call := self.calls.get(number)) is not None:
                self._hand(call, kind, payload)
            elif kind == Kind.PING:
                self.post(frame(0, Kind.PING))
            elif kind == Kind.STOP:
                self.loop.call_later(LINGER_SECONDS, self._ended)

    def _hand(self, call: _Call, kind: int, payload: bytes) -> None:
        if call.ended.done():
            return
        if kind == Kind.DATA:
            call.write(payload)
        elif kind == Kind.ANSWER:
            call.answer(payload)
        elif kind == Kind.START:
            call.start(payload)
        elif kind == Kind.DATA_END:
            call.write_last(payload)
        elif kind == Kind.TRAILERS:
            call.end_with_trailers(payload)
        elif kind == Kind.CREDIT:
            call.grant(CREDIT_BYTES.unpack(payload)[0])
        else:
            call.reset()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._last = number = (self._last + 1) & 0xFFFF_FFFF
        call = self.calls[number] = _Call(self, number, receive, send)
        self.post(frame(number, Kind.OPEN, _opening(scope)))
        call.listen()
        if not self._is_looking:
            self._is_looking = True
            self.loop.call_later(_LOOK_SECONDS, self._look)
        self._new.append(call)
        try:
            await call.ended
        finally:
            del self.calls[number]
            call.close()

    def tell_port(self, port: int) -> None:
        self.post(frame(0, Kind.LISTENING, b"%d" % port))


def _opening(scope: dict[str, Any]) -> bytes:
    host, port = scope.get("client") or ("", 0)
    return lines_of(
        scope["method"].encode(),
        scope["raw_path"],
        scope["query_string"],
        scope["http_version"].encode(),
        scope["scheme"].encode(),
        host.encode(),
        b"%d" % port,
        headers=scope["headers"],
    )


def _listening_port() -> int | None:
    """Of the one socket of this process that listens for callers."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    port: int = found.getsockname()[1]
                    return port
        except OSError:  # it is no socket, or closed by now
            continue
    return None


def end_envoy() -> None:
    """Signals are blocked here, so that those meant for the service, which drains first, do not
    end Envoy."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)


class Server(Protocol):
    """What serves the calls that Envoy hands over, as ASGI has it."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def tell_port(self, port: int) -> None:
        """That Envoy listens, and where."""


async def _tell_port(server: Server) -> None:
    """Once Envoy listens."""
    while (port := _listening_port()) is None:
        await asyncio.sleep(_LISTEN_POLL_SECONDS)
    server.tell_port(port)


_server: Server | None = None


async def _begin() -> Server:
    connection = socket.socket(fileno=int(os.environ[SOCKET_VARIABLE]))
    if WORKERS_VARIABLE in os.environ:
        # Imported late: with one service there is nothing to choose.
        from service.envoy.balancer import Balancer

        return Balancer(connection)
    loop = asyncio.get_running_loop()
    _, relay = await loop.create_connection(lambda: Relay(end_envoy), sock=connection)
    return relay


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What Envoy calls."""
    global _server
    if scope["type"] == "lifespan":
        await receive()
        _server = server = await _begin()
        telling = asyncio.get_running_loop().create_task(_tell_port(server))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        telling.cancel()
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert _server is not None, "the application has started"
    await _server.serve(scope, receive, send)
