"""The body of a request: read within its limits, in its turn and its time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from service.access.memory_budget import REQUESTS, MemoryBudget, Reservation
from service.asgi.events import Receive
from service.engine.errors import MessageTooLarge, NotOffered, TimedOut, WrongInput
from service.front_end import FrontEndSettings

# By the names of gRPC and HTTP; zlib's window bits of each.
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
ENCODINGS = b"identity, deflate, gzip"


# Of the memory budget, what messages that are on their way may take; gRPC's, and others'.
_SHARE = 0.25
# Of those that may be on their way at once, what one connection may have.
_SHARE_OF_PEER = 0.25
# What is no larger is read at once: so much of each may be under way in any case.
_SMALL_BYTES = 65_536


class Bodies:
    """Those of the requests of one protocol.

    A large message is read in its turn, and has its seconds then: so many at a time as the budget
    has room for, of one connection a part of them. Those that wait stay with their callers, but for
    what is under way.
    """

    def __init__(self, settings: FrontEndSettings, budget: MemoryBudget) -> None:
        self.most, self.seconds = settings.max_message_bytes, settings.body_seconds
        self.budget = budget
        self._at_once = max(1, int(_SHARE * budget.limit) // self.most)
        self._turns = asyncio.Semaphore(self._at_once)
        self._of_peer: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, peer: str, receive: Receive) -> Body:
        """peer: the address of the request's connection."""
        return Body(self, peer, receive)

    @asynccontextmanager
    async def turn(self, peer: str) -> AsyncIterator[None]:
        """Raises TimedOut where what is done in it takes longer than its seconds."""
        own = self._of_peer.get(peer)
        if own is None:
            most = max(1, int(_SHARE_OF_PEER * self._at_once))
            own = self._of_peer[peer] = asyncio.Semaphore(most)
        async with own, self._turns, self.limit():
            yield

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raises TimedOut as turn()."""
        try:
            async with asyncio.timeout(self.seconds):
                yield
        except TimeoutError as late:
            raise TimedOut(
                f"the request did not come within {self.seconds:g} s of its turn; send it again"
            ) from late


class Body:
    """What a request brings, in parts."""

    def __init__(self, bodies: Bodies, peer: str, receive: Receive) -> None:
        self._bodies, self._peer = bodies, peer
        self._receive = receive
        self._most = bodies.most
        self._rest = b""
        self._has_more = True

    async def whole(self, encoding: bytes = b"") -> bytes:
        """All of it. Raises MessageTooLarge, TimedOut, Overloaded, WrongInput or NotOffered."""
        data = await self._next()
        if self._has_more:
            data = await self._rest_of_all(data)
        if len(data) > self._most:
            raise too_large(len(data), self._most)
        return inflated(data, encoding, self._most) if encoding else data

    async def _rest_of_all(self, first: bytes) -> bytes:
        with self._bodies.budget.reserve(REQUESTS, len(first)) as held:
            parts = [first]
            async with self._bodies.limit():
                await self._add(parts, _SMALL_BYTES, held)
            if self._has_more:
                async with self._bodies.turn(self._peer):
                    await self._add(parts, self._most + 1, held)
            return b"".join(parts)

    async def _add(self, parts: list[bytes], size: int, held: Reservation) -> None:
        """What comes, until there are so many bytes in all or no more."""
        have = sum(map(len, parts))
        while self._has_more and have < size:
            part = await self._next()
            self._bodies.budget.check(REQUESTS, len(part))
            held.change(len(part))
            parts.append(part)
            have += len(part)

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
        size = await self._head()
        flag = self._rest[0]
        if len(self._rest) < 5 + size:
            await self._fill(5 + size)
        message, self._rest = self._rest[5 : 5 + size], self._rest[5 + size :]
        return inflated(message, encoding, self._most) if flag else message

    @property
    def is_between_messages(self) -> bool:
        """Whether what message() returns next begins with the next part."""
        return not self._rest

    async def _head(self) -> int:
        """The size of the message that has begun."""
        if len(self._rest) < 5:
            await self._fill(5)
        flag, size = self._rest[0], int.from_bytes(self._rest[1:5])
        if flag > 1:
            raise WrongInput(
                "the request is no message of gRPC; send a byte 0 or 1, four of its length, itself"
            )
        if size > self._most:
            raise too_large(size, self._most)
        return size

    async def _fill(self, size: int) -> None:
        """Have so many bytes in the rest; they count as held until they are there."""
        parts = [self._rest]
        with self._bodies.budget.reserve(REQUESTS, len(self._rest)) as held:
            is_large = size > _SMALL_BYTES
            async with self._bodies.turn(self._peer) if is_large else self._bodies.limit():
                await self._add(parts, size, held)
        self._rest = b"".join(parts)
        if len(self._rest) < size:
            raise WrongInput("the request ends within a message; send it whole")

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
