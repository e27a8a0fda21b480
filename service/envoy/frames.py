"""What crosses between Envoy's process and the service's: frames over a socket of their own.

A frame is a head (bytes of its payload, number of its call, kind) and a payload. Text payloads are
lines; HTTP allows no line break in what they hold. Each side may send so many bytes of a body
before the other has said, by CREDIT, that it has taken them.

Imported within Envoy: nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

HEAD = struct.Struct("<IIB")
CREDIT_BYTES = struct.Struct("<I")
_ANSWER_HEAD = struct.Struct("<II")

Headers = Iterable[tuple[bytes, bytes]]


class Kind:
    """Those of the relay first, then those of the service, then those of both.

    No enum: each frame is compared with several, and a member of one is ten times as slow to find.
    """

    LISTENING = 0  # its port, as lines
    OPEN = 1  # a call, as opening() writes it
    BODY = 2  # a part of the request's body, with more to come
    BODY_END = 3  # its last part
    GONE = 4  # the caller has left
    START = 5  # the response's status, whether trailers come, and headers, as lines
    DATA = 6  # a part of the response's body, with more to come
    DATA_END = 7  # its last part, which ends the response where no trailers come
    TRAILERS = 8  # as lines; they end the response
    RESET = 9  # the response cannot be finished
    STOP = 10  # Envoy ends
    CREDIT = 11  # CREDIT_BYTES of a call's body were taken
    ANSWER = 12  # a whole response with trailers, as answer() writes it
    PING = 13  # of the service; the relay sends one back


# Of a response's body, and of a request's: what may be under way. A response's counts against what
# a reader that has stopped leaves unread.
RESPONSE_WINDOW, REQUEST_WINDOW = 16_384, 65_536
# What each part of a response counts for beside its bytes: until it is taken, the objects around it
# take more memory than a token does.
PART_BYTES = 256
# Share of a window from which on taken bytes are credited.
CREDIT_SHARE = 0.5


def frame(call: int, kind: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(len(payload), call, kind) + payload


def answer(call: int, start: bytes, body: bytes, trailers: bytes) -> bytes:
    """start, trailers: as the payloads of START and TRAILERS."""
    first, last = len(start), len(trailers)
    size = _ANSWER_HEAD.size + first + last + len(body)
    head = HEAD.pack(size, call, Kind.ANSWER) + _ANSWER_HEAD.pack(first, last)
    return b"".join((head, start, trailers, body))


def parts_of_answer(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """(start, body, trailers)"""
    first, last = _ANSWER_HEAD.unpack_from(payload)
    start, trailers = _ANSWER_HEAD.size, _ANSWER_HEAD.size + first
    body = trailers + last
    return payload[start:trailers], payload[body:], payload[trailers:body]


def lines_of(*fields: bytes, headers: Headers = ()) -> bytes:
    """Fields first, then names and values in turn."""
    parts = [*fields]
    for name, value in headers:
        parts += (name, value)
    return b"\n".join(parts)


def headers_of(parts: Sequence[bytes], first: int) -> list[tuple[bytes, bytes]]:
    """Of the lines from number ``first`` on."""
    return list(zip(parts[first::2], parts[first + 1 :: 2], strict=True))


class FrameReader:
    """Frames out of what a socket brings."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(call, kind, payload) of each frame that is whole."""
        data = self._rest + data if self._rest else data
        start, end = 0, len(data)
        while end - start >= HEAD.size:
            size, call, kind = HEAD.unpack_from(data, start)
            first = start + HEAD.size
            if end - first < size:
                break
            start = first + size
            yield call, kind, data[first:start]
        self._rest = data[start:]


class FrameWriter:
    """Frames into a socket; what a turn of the loop posts leaves together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: list[bytes] = []
        self._transport: Any = None  # uvloop's are no asyncio.WriteTransport

    def connect(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def post(self, frame: bytes) -> None:
        if not self._posted:
            self._loop.call_soon(self._flush)
        self._posted.append(frame)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._posted))
        self._posted.clear()
