"""The service's end of the socket: an ASGI server whose HTTP is Envoy's."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote

from service.asgi.events import DIRECT, NOTES, Asgi, Event, Headers, Scope
from service.envoy.frames import (
    CREDIT_BYTES,
    CREDIT_SHARE,
    PART_BYTES,
    REQUEST_WINDOW,
    RESPONSE_WINDOW,
    FrameReader,
    FrameWriter,
    Kind,
    answer,
    frame,
    headers_of,
    lines_of,
)

log = logging.getLogger(__name__)

# A call that has sent less than this is never ended for what others have sent.
_LEAST_UNREAD_BYTES = 16_384
# For HTTP's callers, whatever they speak: 503, once more and elsewhere if need be.
_NO_ROOM = lines_of(b"503", b"0", headers=[(b"retry-after", b"1")])
_DISCONNECT: Event = {"type": "http.disconnect"}
# Of heads of requests that are known again when they come once more, and the longest of them.
_KNOWN_HEADS, _MOST_HEAD_BYTES = 256, 1024


class _Call:
    """One call: what the application receives and sends. Its task is cancelled when the caller
    leaves."""

    __slots__ = (
        "_credit", "_events", "_has_trailers", "_is_gone", "_link", "_number", "_room", "_taken",
        "_through", "_waiting", "has_started", "task", "unread",
    )  # fmt: skip

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number
        self._events: deque[Event] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._through: Callable[[bytes], bool] | None = None
        self._is_gone = False
        self._taken = 0  # of the request's body, beyond the last CREDIT
        self._credit = RESPONSE_WINDOW
        self._room: asyncio.Future[None] | None = None
        self._has_trailers = False
        self.has_started = False  # to answer
        self.unread = 0  # bytes of the request's body that the application has not received
        self.task: asyncio.Task[None]

    # -- from Envoy ----------------------------------------------------------------------------

    def put(self, body: bytes, has_more: bool) -> None:
        if has_more and self._is_taken_through(body):
            self._note_taken(len(body))
            return
        self._events.append({"type": "http.request", "body": body, "more_body": has_more})
        self.unread += len(body)
        self._link.unread += len(body)
        self._wake()

    def _is_taken_through(self, body: bytes) -> bool:
        """Only where it is the next to be received, and somebody waits for it."""
        waiting = self._waiting
        return (
            self._through is not None
            and waiting is not None
            and not (waiting.done() or self._events)
            and self._through(body)
        )

    def _note_taken(self, size: int) -> None:
        """Of a body of which more comes."""
        self._taken += size
        if self._taken >= CREDIT_SHARE * REQUEST_WINDOW:
            taken = CREDIT_BYTES.pack(self._taken)
            self._link.post(frame(self._number, Kind.CREDIT, taken))
            self._taken = 0

    def leave(self) -> None:
        """Gives back what it holds here: a task that is cancelled before it ran does nothing."""
        self._is_gone = True
        self._events.clear()
        self.give_back()
        self._wake()
        self.task.cancel()

    def give_back(self) -> None:
        """What was not received of the request counts no more."""
        self._link.unread -= self.unread
        self.unread = 0

    def grant(self, size: int) -> None:
        self._credit += size
        if self._room is not None and self._credit > 0 and not self._room.done():
            self._room.set_result(None)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # -- from the application ------------------------------------------------------------------

    async def receive(self) -> Event:
        while not self._events:
            if self._is_gone:
                return _DISCONNECT
            self._waiting = self._link.loop.create_future()
            await self._waiting
        event = self._events.popleft()
        size = len(event["body"])
        self.unread -= size
        self._link.unread -= size
        if event["more_body"]:
            self._note_taken(size)
        return event

    def read_through(self, take: Callable[[bytes], bool] | None) -> None:
        self._through = take

    def has_room(self) -> bool:
        return self._credit > 0

    def send_now(self, body: bytes) -> None:
        self._credit -= len(body) + PART_BYTES
        self._link.post(frame(self._number, Kind.DATA, body))

    def answer_now(self, start: Event, body: bytes, trailers: Headers) -> bool:
        if self.has_started or len(body) > RESPONSE_WINDOW:
            return False
        self.has_started = True
        payload = lines_of(headers=trailers)
        self._link.post(answer(self._number, _start_of(start), body, payload))
        self._link.forget(self._number)
        return True

    async def send(self, event: Event) -> None:
        """Waits while the caller has not taken what was sent before."""
        kind = event["type"]
        if kind == "http.response.body":
            await self._send_body(event.get("body", b""), event.get("more_body", False))
        elif kind == "http.response.start":
            self._has_trailers = event.get("trailers", False)
            self.has_started = True
            self._link.post(frame(self._number, Kind.START, _start_of(event)))
        elif kind == "http.response.trailers":
            payload = lines_of(headers=event["headers"])
            self._end(Kind.TRAILERS, payload)

    async def _send_body(self, body: bytes, has_more: bool) -> None:
        if len(body) > RESPONSE_WINDOW:
            rest = memoryview(body)
            while len(rest) > RESPONSE_WINDOW:
                await self._send_part(bytes(rest[:RESPONSE_WINDOW]))
                rest = rest[RESPONSE_WINDOW:]
            body = bytes(rest)
        if has_more:
            await self._send_part(body)
            return
        if body:
            await self._wait_for_room()
        if self._has_trailers:
            self._link.post(frame(self._number, Kind.DATA_END, body))
        else:
            self._end(Kind.DATA_END, body)

    async def _send_part(self, body: bytes) -> None:
        await self._wait_for_room()
        self.send_now(body)

    async def _wait_for_room(self) -> None:
        while self._credit <= 0:
            self._room = self._link.loop.create_future()
            await self._room

    def _end(self, kind: int, payload: bytes) -> None:
        self._link.post(frame(self._number, kind, payload))
        self._link.forget(self._number)


class Link(asyncio.Protocol):
    """Serves ``app`` to all calls of one Envoy.

    listening: called with the port once Envoy takes connections. most_unread: bytes of requests
    that the application has not received; beyond it calls that send more are ended.
    """

    def __init__(self, app: Asgi, listening: Callable[[int], None], most_unread: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._app = app
        self._listening = listening
        self._most_unread = most_unread
        self.unread = 0
        self.has_answered = True  # the last ping()
        self._calls: dict[int, _Call] = {}
        # Calls of one connection mostly begin alike.
        self._known_head = lru_cache(_KNOWN_HEADS)(_head)
        self._reader, self._writer = FrameReader(), FrameWriter(self.loop)
        self.post = self._writer.post

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._writer.connect(transport)

    def connection_lost(self, error: Exception | None) -> None:
        for call in list(self._calls.values()):
            call.leave()
        self._calls.clear()

    def data_received(self, data: bytes) -> None:
        for number, kind, payload in self._reader.feed(data):
            if kind == Kind.OPEN:
                self._open(number, payload)
            elif kind == Kind.LISTENING:
                self._listening(int(payload))
            elif kind == Kind.PING:
                self.has_answered = True
            elif (call := self._calls.get(number)) is not None:
                self._hand(call, number, kind, payload)

    def _open(self, number: int, payload: bytes) -> None:
        call = self._calls[number] = _Call(self, number)
        head = _head if len(payload) > _MOST_HEAD_BYTES else self._known_head
        scope, extensions = head(payload)
        scope = {**scope, "extensions": {**extensions, DIRECT: call}}
        call.task = self.loop.create_task(self._serve(call, number, scope))

    def _hand(self, call: _Call, number: int, kind: int, payload: bytes) -> None:
        if kind == Kind.BODY_END:
            call.put(payload, False)
            self._check_room(call, number)
        elif kind == Kind.BODY:
            call.put(payload, True)
            self._check_room(call, number)
        elif kind == Kind.CREDIT:
            call.grant(CREDIT_BYTES.unpack(payload)[0])
        elif kind == Kind.GONE:
            self.forget(number)
            call.leave()

    def _check_room(self, call: _Call, number: int) -> None:
        if self.unread <= self._most_unread or call.unread < _LEAST_UNREAD_BYTES:
            return
        self.forget(number)
        if call.has_started:
            self.post(frame(number, Kind.RESET))
        else:
            self.post(frame(number, Kind.START, _NO_ROOM))
            self.post(frame(number, Kind.DATA_END))
        call.leave()

    async def _serve(self, call: _Call, number: int, scope: Scope) -> None:
        try:
            await self._app(scope, call.receive, call.send)
        except Exception:
            log.exception("a call failed")
        finally:
            call.give_back()
            # One that has not been answered whole.
            if self._calls.pop(number, None) is not None:
                self.post(frame(number, Kind.RESET))

    def ping(self) -> None:
        """Have the relay answer: whether Envoy's process goes on."""
        self.has_answered = False
        self.post(frame(0, Kind.PING))

    def forget(self, number: int) -> None:
        self._calls.pop(number, None)

    async def end_all(self, seconds: float) -> None:
        """End every call that has not ended by itself within so many seconds, then Envoy."""
        tasks = [call.task for call in self._calls.values()]
        if tasks and seconds:
            await asyncio.wait(tasks, timeout=seconds)
        late = [task for task in tasks if not task.done()]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        self.post(frame(0, Kind.STOP))


def _start_of(event: Event) -> bytes:
    status, trailers = b"%d" % event["status"], b"1" if event.get("trailers") else b"0"
    return lines_of(status, trailers, headers=event["headers"])


def _head(payload: bytes) -> tuple[Scope, dict[str, dict[object, object]]]:
    """A request's scope without its extensions, and those that requests with this head share."""
    parts = payload.split(b"\n")
    method, raw_path, query, version, scheme, host, port = parts[:7]
    path = raw_path.decode("latin-1")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": version.decode(),
        "method": method.decode(),
        "scheme": scheme.decode(),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers_of(parts, 7),
        "client": (host.decode(), int(port)) if host else None,
        "server": None,
    }
    return scope, {"http.response.trailers": {}, NOTES: {}}
