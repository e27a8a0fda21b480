"""HTTP/2 frame by frame, also what no library sends; and the attacks that are made of it.

    with ExitStack() as stack:
        unfinished_bodies(stack, service.port, calls=600, connections=6)
        ...                                     # they stay open until the stack ends

Everything goes to a port of this machine, is bounded in count and time, and ends with its stack.
"""

from __future__ import annotations

import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Self

import hpack
import pytest
from hyperframe import frame as h2frame
from hyperframe.frame import Frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CLASSIFY = "/unroll.v1.UnrollService/Classify"
FRAME_BYTES = 16_384

_READ_BYTES = 1 << 18
_DEFAULT_WINDOW = 65_535
_HEADER_BYTES = 9
_ACK, _INITIAL_WINDOW, _CANCEL = 0x1, 0x4, 0x8
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x7, 0x8


class FrameConnection:
    """A TCP connection that sends frames as they are; not thread-safe.

    acknowledges: whether the server's SETTINGS are acknowledged, as every client must.
    settings: of its own. speaks: whether it begins with the preface, or stays silent.

    is_settled: whether the server's SETTINGS came. resets: error code by stream. answers: streams
    that have headers. closed_with: error code of the server's GOAWAY, None for none.
    """

    def __init__(
        self,
        port: int,
        *,
        acknowledges: bool = True,
        settings: dict[int, int] | None = None,
        speaks: bool = True,
    ) -> None:
        self.is_closed = False
        self.resets: dict[int, int] = {}
        self.answers: set[int] = set()
        self.closed_with: int | None = None
        self._acknowledges = acknowledges
        self._initial_window = _DEFAULT_WINDOW
        self._granted: dict[int, int] = {}
        self._spent: dict[int, int] = {}
        self._received = bytearray()
        self._unsent = bytearray()
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.setblocking(False)
        self.is_settled = False
        if speaks:
            mine = h2frame.SettingsFrame(0)
            mine.settings = settings or {}
            self.send(PREFACE, mine)
            self.pump(1, lambda: self.is_settled and not self._unsent)

    def send(self, *frames: Frame | bytes) -> None:
        """Queue frames; pump() sends them."""
        for frame in frames:
            self._unsent += frame if isinstance(frame, bytes) else frame.serialize()

    def open(self, number: int, block: bytes, *, end: bool = False) -> None:
        """Begin the call ``number`` with a whole header block."""
        headers = h2frame.HeadersFrame(number, block, flags=["END_HEADERS"])
        if end:
            headers.flags.add("END_STREAM")
        self.send(headers)

    def window(self, number: int) -> int:
        """Bytes that may be sent on a call now."""
        own = self._initial_window + self._granted.get(number, 0) - self._spent.get(number, 0)
        return min(own, _DEFAULT_WINDOW + self._granted.get(0, 0) - self._spent.get(0, 0))

    def send_data(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Within the window: see window()."""
        self.send(h2frame.DataFrame(number, data, flags=["END_STREAM"] if end else []))
        for spent in (0, number):
            self._spent[spent] = self._spent.get(spent, 0) + len(data)

    def pump(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Send and receive for so long, or until everything is sent (or ``until`` holds)."""
        deadline = time.monotonic() + seconds
        while not self.is_closed and time.monotonic() < deadline:
            self.turn(0.02)
            if until() if until else not self._unsent:
                return

    def turn(self, seconds: float, *, reads: bool = True) -> None:
        """Send and receive once what can be, after waiting for at most ``seconds``."""
        wanted = (select.POLLIN if reads else 0) | (select.POLLOUT if self._unsent else 0)
        waiting = select.poll()  # select() knows no file beyond 1,024
        waiting.register(self._socket, wanted)
        ready = dict(waiting.poll(seconds * 1000)).get(self._socket.fileno(), 0)
        try:
            if ready & select.POLLOUT:
                sent = self._socket.send(self._unsent[:_READ_BYTES])
                del self._unsent[:sent]
            if ready & (select.POLLIN | select.POLLHUP | select.POLLERR) and reads:
                received = self._socket.recv(_READ_BYTES)
                self.is_closed = not received
                self._received += received
        except OSError:
            self.is_closed = True
        for kind, flags, number, payload in self._frames():
            self._take(kind, flags, number, payload)

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._received) >= _HEADER_BYTES:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < _HEADER_BYTES + length:
                return
            head = bytes(self._received[:_HEADER_BYTES])
            payload = bytes(self._received[_HEADER_BYTES : _HEADER_BYTES + length])
            del self._received[: _HEADER_BYTES + length]
            yield head[3], head[4], int.from_bytes(head[5:], "big"), payload

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _GOAWAY:
            self.closed_with = int.from_bytes(payload[4:8], "big")
        elif kind == _HEADERS:
            self.answers.add(number)
        elif kind == _RESET:
            self.resets[number] = int.from_bytes(payload, "big")
        elif kind == _WINDOW_UPDATE:
            grant = int.from_bytes(payload, "big")
            self._granted[number] = self._granted.get(number, 0) + grant
        elif kind == _SETTINGS and not flags & _ACK:
            agreed = dict(struct.iter_unpack(">HI", payload))
            self.is_settled = True
            self._initial_window = agreed.get(_INITIAL_WINDOW, self._initial_window)
            if self._acknowledges:
                self.send(h2frame.SettingsFrame(0, flags=["ACK"]))

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def abort(self) -> None:
        """A TCP reset in the place of an orderly end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def header_block(path: str, extra: Sequence[tuple[str, str]] = ()) -> bytes:
    """Of a gRPC call; nothing of it enters the table of the connection."""
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
        ("te", "trailers"), ("content-type", "application/grpc"), *extra,
    ]  # fmt: skip
    return hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(name, value) for name, value in headers]
    )


def allow_files(count: int) -> None:
    """Let this process hold so many connections; skips the test where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"this process may open {hard} files, not {count} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def connected(
    stack: ExitStack, port: int, count: int, *, acknowledges: bool = True, speaks: bool = True
) -> list[FrameConnection]:
    """Connections that end with the stack. Fewer where the server accepts no more."""
    made: list[FrameConnection] = []
    for _ in range(count):
        try:
            connection = FrameConnection(port, acknowledges=acknowledges, speaks=speaks)
        except OSError:
            break
        made.append(stack.enter_context(connection))
    return made


def _numbers(calls: int) -> range:
    """Of the streams of a client's first calls."""
    return range(1, 2 * calls, 2)


# -- attacks; each returns its connections, which the stack holds open ------------------------


def unfinished_bodies(
    stack: ExitStack,
    port: int,
    *,
    calls: int,
    connections: int = 1,
    path: str = CLASSIFY,
    size: int = 990_000,
    seconds: float = 8.0,
) -> tuple[list[FrameConnection], int]:
    """Messages announced as 1 MB, all but whole, as far as the windows let them; bytes sent too."""
    made = connected(stack, port, connections)
    numbers = _numbers(calls // connections)
    for connection in made:
        for number in numbers:
            connection.open(number, header_block(path))
        connection.pump(2)
    left = {(one, number): size for one in made for number in numbers}
    total, deadline, idle = 0, time.monotonic() + seconds, 0
    while left and idle < 10 and time.monotonic() < deadline:
        sent = sum(_send_some(one, left) for one in made)
        total += sent
        idle = 0 if sent else idle + 1
    return made, total


def _send_some(connection: FrameConnection, left: dict[tuple[FrameConnection, int], int]) -> int:
    """One frame of each body that has room; bytes sent."""
    sent = 0
    for one, number in [key for key in left if key[0] is connection]:
        if connection.is_closed or number in connection.resets | dict.fromkeys(connection.answers):
            del left[one, number]
            continue
        room = min(FRAME_BYTES - 5, connection.window(number) - 5, left[one, number])
        if room > 0:
            # What follows a message's head reads as more of it.
            connection.send_data(number, struct.pack(">BI", 0, 1_000_000) + bytes(room))
            left[one, number] -= room
            sent += room
    connection.pump(0.5)
    connection.turn(0.01)
    return sent


def header_bombs(
    stack: ExitStack, port: int, *, blocks: int, connections: int = 1, acknowledges: bool = False
) -> list[FrameConnection]:
    """Header blocks of 15 KB, each byte a reference to a header of 3.9 KB: 58 MB decoded.

    acknowledges: gRPC core holds to its limits from the acknowledgement of its SETTINGS on.
    """
    made = connected(stack, port, connections, acknowledges=acknowledges)
    plain = header_block(CLASSIFY)
    # The newest entry of the table has the number 62.
    entry = hpack.Encoder().encode([("x", "a" * 3900)], huffman=False)
    for place, number in enumerate(_numbers(blocks // connections)):
        for connection in made:
            connection.open(number, plain + (entry if place == 0 else b"\xbe" * 15_000))
            connection.pump(1)
    # They are decoded long after they were sent.
    _wait(made, lambda one: len(one.resets.keys() | one.answers) >= blocks // connections - 1, 10)
    return made


def rapid_resets(stack: ExitStack, port: int, calls: int) -> list[FrameConnection]:
    """Each call reset in the moment it begins."""
    (connection,) = connected(stack, port, 1)
    block = header_block(CLASSIFY)
    for number in _numbers(calls):
        connection.open(number, block)
        connection.send(h2frame.RstStreamFrame(number, _CANCEL))
        _pump_now_and_then(connection, number)
    return [connection]


def settings_flood(stack: ExitStack, port: int, frames: int) -> list[FrameConnection]:
    """Each must be acknowledged; no acknowledgement is read."""
    (connection,) = connected(stack, port, 1)
    frame = h2frame.SettingsFrame(0)
    frame.settings = {_INITIAL_WINDOW: _DEFAULT_WINDOW}
    return _flood(connection, frame.serialize(), frames)


def ping_flood(stack: ExitStack, port: int, frames: int) -> list[FrameConnection]:
    """As settings_flood."""
    (connection,) = connected(stack, port, 1)
    return _flood(connection, h2frame.PingFrame(0, b"12345678").serialize(), frames)


def continuation_flood(stack: ExitStack, port: int, frames: int) -> list[FrameConnection]:
    """A header block that goes on and on."""
    (connection,) = connected(stack, port, 1)
    connection.send(h2frame.HeadersFrame(1, header_block(CLASSIFY)))
    literal = b"\x00\x01y\x7f\xe9\x06" + b"a" * 1000  # 1,000 = 127 + 105 + 6 * 128
    return _flood(connection, h2frame.ContinuationFrame(1, literal * 16).serialize(), frames)


def empty_continuations(stack: ExitStack, port: int, frames: int) -> list[FrameConnection]:
    (connection,) = connected(stack, port, 1)
    connection.send(h2frame.HeadersFrame(1, header_block(CLASSIFY)))
    return _flood(connection, h2frame.ContinuationFrame(1).serialize(), frames)


def oversized_frames(stack: ExitStack, port: int, frames: int) -> list[FrameConnection]:
    """Frames that claim 16 MiB less one byte; each on a connection of its own, a part sent."""
    made = connected(stack, port, min(frames, 32))
    for connection in made:
        connection.open(1, header_block(CLASSIFY))
        connection.send(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(65_536))
        connection.pump(1)
    return made


def half_closed_calls(stack: ExitStack, port: int, calls: int) -> list[FrameConnection]:
    """Calls that end without the message that their method takes."""
    (connection,) = connected(stack, port, 1)
    for number in _numbers(calls):
        connection.open(number, header_block(CLASSIFY), end=True)
        _pump_now_and_then(connection, number)
    return [connection]


def calls_of_headers_alone(stack: ExitStack, port: int, calls: int) -> list[FrameConnection]:
    """Calls whose message never begins."""
    (connection,) = connected(stack, port, 1)
    for number in _numbers(calls):
        connection.open(number, header_block(CLASSIFY))
        _pump_now_and_then(connection, number)
    return [connection]


def closed_windows(stack: ExitStack, port: int, calls: int) -> list[FrameConnection]:
    """Whole calls, none of whose answers may be sent."""
    connection = stack.enter_context(FrameConnection(port, settings={_INITIAL_WINDOW: 0}))
    path = "/unroll.v1.UnrollService/ListModels"
    for number in _numbers(calls):
        connection.open(number, header_block(path))
        connection.send(h2frame.DataFrame(number, bytes(5), flags=["END_STREAM"]))
        _pump_now_and_then(connection, number)
    return [connection]


def silent_connections(stack: ExitStack, port: int, count: int) -> list[FrameConnection]:
    """TCP alone."""
    return connected(stack, port, count, speaks=False)


def slow_handshakes(stack: ExitStack, port: int, count: int) -> list[FrameConnection]:
    """Half of the preface."""
    made = connected(stack, port, count, speaks=False)
    for connection in made:
        connection.send(PREFACE[:12])
        connection.pump(1)
    return made


def unsettled_connections(stack: ExitStack, port: int, count: int) -> list[FrameConnection]:
    """The preface and SETTINGS, and then nothing, not even their acknowledgement."""
    return connected(stack, port, count, acknowledges=False)


def _flood(connection: FrameConnection, frame: bytes, count: int) -> list[FrameConnection]:
    """Nothing is read until all is sent, or cannot be."""
    for begin in range(0, count, 1000):
        connection.send(frame * min(1000, count - begin))
        deadline = time.monotonic() + 1
        while connection.has_unsent and not connection.is_closed and time.monotonic() < deadline:
            connection.turn(0.02, reads=False)
    _wait([connection], lambda one: False, 0.5)
    return [connection]


def _pump_now_and_then(connection: FrameConnection, number: int) -> None:
    if number % 400 == 399:
        connection.pump(2)


def closed(connections: Sequence[FrameConnection], seconds: float) -> int:
    """How many the server has closed, looked at for at most so long."""
    _wait(connections, lambda one: False, seconds)
    return sum(one.is_closed for one in connections)


def _wait(
    connections: Sequence[FrameConnection],
    is_over: Callable[[FrameConnection], bool],
    seconds: float,
) -> None:
    """Take what comes until each is over or closed, for at most so long."""
    deadline = time.monotonic() + seconds
    left = list(connections)
    while left and time.monotonic() < deadline:
        for connection in left:
            connection.turn(0)
        left = [one for one in left if not (one.is_closed or is_over(one))]
        time.sleep(0.02)


# By name: what is sent in one go. The number: calls or frames of the quick run.
FLOODS: dict[str, tuple[Callable[[ExitStack, int, int], list[FrameConnection]], int]] = {
    "rapid resets": (rapid_resets, 5_000),
    "SETTINGS": (settings_flood, 20_000),
    "PING": (ping_flood, 20_000),
    "CONTINUATION without an end": (continuation_flood, 1_000),
    "empty CONTINUATION": (empty_continuations, 20_000),
    "oversized frames": (oversized_frames, 16),
    "half-closed calls": (half_closed_calls, 600),
    "calls of headers alone": (calls_of_headers_alone, 600),
    "windows of 0": (closed_windows, 600),
}
