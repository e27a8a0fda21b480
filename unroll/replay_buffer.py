"""What a caller sends into a stream, read once and buffered while it may be sent again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from unroll.step_streams import to_frame
from unroll.tag_streams import to_request
from unroll.v1 import unroll_pb2 as pb

# Largest number of parts buffered. With words, those since the last resume token; with a text,
# whose tokens only the server can count, all since the server began or the last one handed over.
MOST_BUFFERED = 65_536


@dataclass(frozen=True)
class PartKind:
    """What parts of a stream are.

    kept: one as it is buffered: its caller may change it. positions: of its answers; None where
    only the server knows. to_start, to_request: the messages that begin the stream and that bring a
    part, without so many of its first positions.
    """

    kept: Callable[[Any], Any]
    positions: Callable[[Any], int | None]
    to_start: Callable[[Any], Any]
    to_request: Callable[[Any, int], Any]


# Texts, which the server splits, or lists of words; each word is answered.
WORDS = PartKind(
    lambda part: part if isinstance(part, str) else list(part),
    lambda part: None if isinstance(part, str) else len(part),
    lambda start: pb.StreamTagRequest(start=start),
    to_request,
)
# Frames, each answered once; they are buffered as messages.
FRAMES = PartKind(
    to_frame,
    lambda part: 1,
    lambda start: pb.StreamStepRequest(start=start),
    lambda part, skip: pb.StreamStepRequest(frame=part),
)


class Parts:
    """Parts by number, from 0. The stream could resume at ``position``, whose token is word
    ``skip`` of part ``first``.

    buffers: whether any are buffered. failure: what the caller's own iterable raised.
    """

    def __init__(self, buffers: bool, kind: PartKind = WORDS) -> None:
        self.failure: Exception | None = None
        self.first = self.skip = self.position = 0
        self._kind = kind
        self._is_buffering = buffers
        self._buffered: dict[int, Any] = {}
        self._count = 0
        self._is_over = False

    @property
    def is_whole(self) -> bool:
        """Whether everything from ``first`` on is here."""
        return self._is_buffering and (self.first in self._buffered or self.first == self._count)

    def reach(self, position: int) -> bool:
        """Begin at ``position``, if the parts say which word that is."""
        first, skip, at = self.first, self.skip, self.position
        while at < position:
            part = self._buffered.get(first)
            count = None if part is None else self._kind.positions(part)
            if count is None:
                return False
            left = count - skip
            if at + left <= position:
                first, skip, at = first + 1, 0, at + left
            else:
                skip, at = skip + position - at, position
        self._drop_until(first, skip, at)
        return True

    def are_answered(self, position: int) -> bool:
        """Whether there are no further ones, of a position each, than those before ``position``."""
        return self._is_over and self.first + position - self.position == self._count

    def jump(self, number: int, position: int) -> None:
        """Begin at ``position``, with which part ``number`` begins."""
        self._drop_until(number, 0, position)

    def _drop_until(self, first: int, skip: int, position: int) -> None:
        for number in range(self.first, first):
            self._buffered.pop(number, None)
        self.first, self.skip, self.position = first, skip, position

    def _add(self, part: Any) -> None:
        # The number comes last: whoever finds it counted finds the part.
        self._buffered[self._count] = self._kind.kept(part)
        self._count += 1
        self._buffered.pop(self._count - (MOST_BUFFERED if self._is_buffering else 1) - 1, None)

    def _at(self, number: int) -> Any:
        """None after the last one."""
        return self._buffered[number] if number < self._count else None

    def _end(self, failure: Exception | None = None) -> None:
        self.failure, self._is_over = failure, True

    def check(self) -> None:
        """Raises what the caller's own iterable raised."""
        if self.failure is not None:
            raise self.failure


class ReadParts(Parts):
    """Read by the thread of whichever call is under way."""

    def __init__(self, parts: Iterable[Any], buffers: bool, kind: PartKind = WORDS) -> None:
        super().__init__(buffers, kind)
        self._parts = iter(parts)
        self._reading = threading.Lock()

    def read(self, number: int) -> Any:
        """Part ``number``, once it is there; None after the last one."""
        while number >= self._count and not self._is_over:
            # A call that broke may still wait here for the caller's next part: the call after it
            # then waits for the lock, and finds the part.
            with self._reading:
                if number >= self._count and not self._is_over:
                    self._read_one()
        return self._at(number)

    def _read_one(self) -> None:
        try:
            self._add(next(self._parts))
        except StopIteration:
            self._end()
        except Exception as error:
            self._end(error)

    def requests(
        self, start: Any, first: int, skip: int, is_wanted: Callable[[], bool]
    ) -> Iterator[Any]:
        """What one call sends: parts from ``first`` on, without ``skip`` of its words.

        is_wanted: whether the call is still the one under way.
        """
        yield self._kind.to_start(start)
        number = first
        while (part := self.read(number)) is not None and is_wanted():
            yield self._kind.to_request(part, skip if number == first else 0)
            number += 1


class AwaitedParts(Parts):
    """Read by a task of its own, which outlives the calls that wait for it."""

    def __init__(self, parts: AsyncIterable[Any], buffers: bool, kind: PartKind = WORDS) -> None:
        super().__init__(buffers, kind)
        self._parts = aiter(parts)
        self._reading: asyncio.Task[None] | None = None

    async def read(self, number: int) -> Any:
        """As ReadParts.read."""
        while number >= self._count and not self._is_over:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.ensure_future(self._read_one())
            # A call that breaks cancels what waits here, and must not lose the part.
            await asyncio.shield(self._reading)
        return self._at(number)

    async def requests(
        self,
        start: Any,
        first: int,
        skip: int,
        is_wanted: Callable[[], bool],
        answered: Callable[[], Awaitable[object]],
    ) -> AsyncIterator[Any]:
        """As ReadParts.requests; answered: waits until the server has taken the start."""
        yield self._kind.to_start(start)
        # What is sent into a call that was refused would hide why (grpc#36066).
        await answered()
        number = first
        while (part := await self.read(number)) is not None and is_wanted():
            yield self._kind.to_request(part, skip if number == first else 0)
            number += 1

    async def _read_one(self) -> None:
        try:
            self._add(await anext(self._parts))
        except StopAsyncIteration:
            self._end()
        except Exception as error:
            self._end(error)

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
