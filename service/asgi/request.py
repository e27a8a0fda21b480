"""The body of a request: read within its limits and its time."""

from __future__ import annotations

import asyncio
import zlib

from service.asgi.events import Receive
from service.engine.errors import MessageTooLarge, NotOffered, TimedOut, WrongInput

# By the names of gRPC and HTTP; zlib's window bits of each.
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
ENCODINGS = b"identity, deflate, gzip"


class Body:
    """What a request brings, in parts.

    seconds: that the rest of a message may take once it has begun. most: bytes of a message.
    """

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most, self._seconds = most, seconds
        self._rest = b""
        self._has_more = True

    async def whole(self, encoding: bytes = b"") -> bytes:
        """All of it. Raises MessageTooLarge, TimedOut, WrongInput or NotOffered."""
        event = await self._next()
        if event and not self._has_more:
            return self._checked(event, encoding)
        parts, size = [event], len(event)
        async with _Limit(self._seconds):
            while self._has_more:
                parts.append(await self._next())
                size += len(parts[-1])
                if size > self._most:
                    raise too_large(size, self._most)
        return self._checked(b"".join(parts), encoding)

    def _checked(self, data: bytes, encoding: bytes) -> bytes:
        if len(data) > self._most:
            raise too_large(len(data), self._most)
        return inflated(data, encoding, self._most) if encoding else data

    async def message(self, encoding: bytes = b"") -> bytes | None:
        """The next message of gRPC: a byte that says whether it is compressed, its length, itself.

        None at the end. Raises as whole().
        """
        if not self._rest:
            while not (data := await self._next()):
                if not self._has_more:
                    return None
            size = int.from_bytes(data[1:5])
            if len(data) == 5 + size and data[0] == 0 and size <= self._most:
                return data[5:]
            self._rest = data
        async with _Limit(self._seconds):
            return await self._rest_of_message(encoding)

    async def _rest_of_message(self, encoding: bytes) -> bytes:
        await self._fill(5)
        flag, size = self._rest[0], int.from_bytes(self._rest[1:5])
        if flag > 1:
            raise WrongInput(
                "the request is no message of gRPC; send a byte 0 or 1, four of its length, itself"
            )
        if size > self._most:
            raise too_large(size, self._most)
        await self._fill(5 + size)
        message, self._rest = self._rest[5 : 5 + size], self._rest[5 + size :]
        return inflated(message, encoding, self._most) if flag else message

    async def _fill(self, size: int) -> None:
        if len(self._rest) >= size:
            return
        parts, have = [self._rest], len(self._rest)
        while have < size:
            if not self._has_more:
                raise WrongInput("the request ends within a message; send it whole")
            parts.append(await self._next())
            have += len(parts[-1])
        self._rest = b"".join(parts)

    async def _next(self) -> bytes:
        """Raises CancelledError once the caller has left."""
        if not self._has_more:
            return b""
        event = await self._receive()
        if event["type"] != "http.request":
            raise asyncio.CancelledError
        self._has_more = event.get("more_body", False)
        body: bytes = event.get("body", b"")
        return body


class _Limit:
    """A time limit that says what it is of."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._timeout.__aexit__(*error)  # type: ignore[arg-type]
        except TimeoutError as late:
            raise TimedOut(
                f"the request did not come within {self._seconds:g} s; send it again"
            ) from late


def too_large(size: int, most: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"the request has {size} bytes, larger than max ({most}); send less at once"
    )


def inflated(data: bytes, encoding: bytes, most: int) -> bytes:
    """Raises WrongInput, MessageTooLarge or NotOffered."""
    if encoding in (b"", b"identity"):
        raise WrongInput("a message is marked as compressed, and no header says how")
    if encoding not in _WINDOW_BITS:
        raise NotOffered(
            f"requests in {encoding.decode(errors='replace')[:40]!r} are not read here; send "
            f"{ENCODINGS.decode()}"
        )
    inflating = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = inflating.decompress(data, most + 1)
    except zlib.error as error:
        raise WrongInput(f"the request cannot be decompressed ({error})") from error
    if len(message) > most:
        raise too_large(len(message), most)
    if not inflating.eof:
        raise WrongInput("the request cannot be decompressed: it ends too early")
    return message
