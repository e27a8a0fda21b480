"""WebSocket (RFC 6455) over the body of a request and its answer, as Envoy hands upgrades on.

Over HTTP/2 (RFC 8441) it is the same: Envoy answers for the difference. Whoever is done with one
returns without ending the answer: Envoy leaves a connection open whose answer has ended, and
closes one whose answer was given up, once what was written has left.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from enum import IntEnum
from hashlib import sha1

from service.asgi.events import Receive, Scope, Send, header
from service.asgi.request import too_large
from service.engine.errors import TimedOut, WrongInput

VERSION = b"13"
NORMAL_CLOSE = 1000
_NO_CODE = 1005  # for a close frame without one
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_MOST_CONTROL_BYTES = 125
# Of a close frame beside its code.
_MOST_REASON_BYTES = _MOST_CONTROL_BYTES - 2
# A frame's first byte: whether it is the last of its message, bits of extensions, its kind.
_LAST, _RESERVED, _KIND = 0x80, 0x70, 0x0F
# Its second: whether it is masked, its length or how many bytes have that.
_MASKED, _LENGTH = 0x80, 0x7F
_LENGTH_BYTES = {126: 2, 127: 8}


class Kind(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_KINDS = frozenset(Kind)


class Closed(Exception):
    """The other side has closed the socket, or its connection has ended."""


def is_upgrade(scope: Scope) -> bool:
    return scope["method"] == "GET" and header(scope, b"upgrade").lower() == b"websocket"


def protocols_of(scope: Scope) -> list[str]:
    """The subprotocols that are offered, in their order."""
    offered = header(scope, b"sec-websocket-protocol").decode("latin-1").split(",")
    return [name.strip() for name in offered if name.strip()]


class WebSocket:
    """The server's end of one.

    most: bytes of a message. seconds: that the rest of a message may take once it has begun.
    """

    def __init__(self, receive: Receive, send: Send, most: int, seconds: float) -> None:
        self._receive, self._send = receive, send
        self._most, self._seconds = most, seconds
        self._rest = bytearray()
        self._has_more = True
        self._is_closed = False

    # -- from the caller -----------------------------------------------------------------------

    async def next(self) -> str | bytes:
        """A message whole; pings are answered meanwhile.

        Raises Closed, once that was answered, and WrongInput, MessageTooLarge or TimedOut, after
        which nothing more can be read.
        """
        while True:
            await self._fill(1)
            try:
                async with asyncio.timeout(self._seconds):
                    message = await self._message()
            except TimeoutError as late:
                raise TimedOut(
                    f"the rest of a message did not come within {self._seconds:g} s; send it again"
                ) from late
            if message is not None:
                return message

    async def discard(self) -> None:
        """Everything to come, so that what was sent is read before the connection closes.

        Raises Closed in the end.
        """
        while True:
            self._rest.clear()
            await self._fill(1)

    async def _message(self) -> str | bytes | None:
        """None for a control frame that stands by itself."""
        kind, parts, size = None, [], 0
        while True:
            is_last, opcode, payload = await self._frame(self._most - size)
            if opcode >= Kind.CLOSE:
                await self._control(opcode, payload)
                if kind is None:
                    return None
                continue
            if (opcode == Kind.CONTINUATION) != (kind is not None):
                raise WrongInput("a frame goes on with no message, or begins one within another")
            kind = opcode if kind is None else kind
            parts.append(payload)
            size += len(payload)
            if is_last:
                return _decoded(b"".join(parts)) if kind == Kind.TEXT else b"".join(parts)

    async def _frame(self, room: int) -> tuple[bool, int, bytes]:
        await self._fill(2)
        first, second = self._rest[:2]
        opcode, size = first & _KIND, second & _LENGTH
        if first & _RESERVED or opcode not in _KINDS or not second & _MASKED:
            raise WrongInput("a frame is of no kind, has bits of an extension, or is not masked")
        start = 2 + _LENGTH_BYTES.get(size, 0)
        await self._fill(start)
        if start > 2:
            size = int.from_bytes(self._rest[2:start])
        is_last = bool(first & _LAST)
        if opcode >= Kind.CLOSE and (size > _MOST_CONTROL_BYTES or not is_last):
            raise WrongInput(f"a control frame has {size} bytes, or comes in parts")
        if opcode < Kind.CLOSE and size > room:
            raise too_large(self._most - room + size, self._most)
        await self._fill(start + 4 + size)
        mask = bytes(self._rest[start : start + 4])
        payload = bytes(self._rest[start + 4 : start + 4 + size])
        del self._rest[: start + 4 + size]
        return is_last, opcode, _unmasked(payload, mask)

    async def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == Kind.PING:
            await self._put(Kind.PONG, payload)
        elif opcode == Kind.CLOSE:
            code = int.from_bytes(payload[:2]) if len(payload) >= 2 else _NO_CODE
            await self.close(NORMAL_CLOSE if code == _NO_CODE else code, "")
            raise Closed

    async def _fill(self, size: int) -> None:
        while len(self._rest) < size:
            if not self._has_more:
                raise Closed
            event = await self._receive()
            if event["type"] != "http.request":
                raise Closed
            self._has_more = event.get("more_body", False)
            self._rest += event.get("body", b"")

    # -- to the caller -------------------------------------------------------------------------

    async def accept(self, scope: Scope, protocol: str) -> None:
        """protocol: one of those offered; empty where none was. Raises WrongInput."""
        headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        if key := header(scope, b"sec-websocket-key"):  # HTTP/2 has none
            headers.append((b"sec-websocket-accept", _accept_of(key)))
        if protocol:
            headers.append((b"sec-websocket-protocol", protocol.encode()))
        await self._send({"type": "http.response.start", "status": 101, "headers": headers})
        # Envoy keeps headers back until there is some of the body.
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def send(self, data: bytes, is_text: bool) -> None:
        """Waits for a caller that does not read."""
        await self._put(Kind.TEXT if is_text else Kind.BINARY, data)

    async def close(self, code: int, reason: str) -> None:
        """Once; a reason that is too long is cut."""
        if self._is_closed:
            return
        cut = reason.encode(errors="replace")[:_MOST_REASON_BYTES].decode(errors="ignore")
        await self._put(Kind.CLOSE, code.to_bytes(2) + cut.encode())
        self._is_closed = True

    async def _put(self, kind: Kind, data: bytes) -> None:
        if not self._is_closed:
            body = _frame_of(kind, data)
            await self._send({"type": "http.response.body", "body": body, "more_body": True})


def _accept_of(key: bytes) -> bytes:
    """Raises WrongInput."""
    try:
        is_key = len(b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        is_key = False
    if not is_key:
        raise WrongInput("sec-websocket-key is not 16 bytes in base64")
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def _frame_of(kind: Kind, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((_LAST | kind, size)) + data
    if size < 65_536:
        return bytes((_LAST | kind, 126)) + size.to_bytes(2) + data
    return bytes((_LAST | kind, 127)) + size.to_bytes(8) + data


def _unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)


def _decoded(data: bytes) -> str:
    """Raises WrongInput."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WrongInput(f"a text is not UTF-8 ({error.reason})") from error
