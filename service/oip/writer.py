"""The queue of responses to one caller."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any


class ResponseQueue:
    """Writes one response after the other: gRPC refuses two writes at once.

    Whoever puts a response in may be cancelled at any time: gRPC takes no write back, so those
    that have begun are finished by run(), which is not to be cancelled but closed.

    most: responses that wait; further ones are not put in before there is room.
    """

    def __init__(self, write: Callable[[Any], Awaitable[None]], most: int) -> None:
        self._write = write
        self._waiting: asyncio.Queue[Any] = asyncio.Queue(most)
        self._put = 0
        self._written = 0
        self._awaited: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """Whether all that was put in is written."""
        return self._written == self._put and self._waiting.empty()

    async def put(self, response: Any) -> None:
        await self._waiting.put(response)
        self._put += 1

    async def written(self) -> None:
        """Until all that was put in before is written."""
        if self._written < self._put:
            done = asyncio.get_running_loop().create_future()
            self._awaited.append((self._put, done))
            await done

    def when_written(self, done: Callable[[], None]) -> None:
        """Have ``done`` called once all that was put in before is written; never if it is not."""
        if self._written >= self._put:
            done()
            return
        written = asyncio.get_running_loop().create_future()
        written.add_done_callback(lambda _: done())
        self._awaited.append((self._put, written))

    async def run(self) -> None:
        """Until it is closed. Raises what writing raises."""
        while not self._is_closed:
            response = await self._waiting.get()
            if response is None:
                return
            await self._write(response)
            self._written += 1
            while self._awaited and self._awaited[0][0] <= self._written:
                _, done = self._awaited.popleft()
                if not done.done():
                    done.set_result(None)

    def close(self) -> None:
        """End run() after the write that is under way; what still waits is dropped."""
        self._is_closed = True
        if self._waiting.empty():
            self._waiting.put_nowait(None)
