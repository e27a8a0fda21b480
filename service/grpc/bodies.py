"""Request bodies on their way: how many at once, of which connection, for how long.

grpc reads the body of a call with one request by itself, which is fast and knows no deadline. So
that calls whose bodies never end hold little, only so many are read in that way at once; further
ones wait their turn here, are read by us, and are given up when they do not come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from weakref import WeakValueDictionary

import grpc

from service.engine.errors import TimedOut, WrongInput

# Bodies that we read ourselves at once: in all, and of one connection.
_MOST_TIMED, _MOST_TIMED_OF_PEER = 32, 8


class Body:
    """One body that grpc reads. end() once it is there, or never will be."""

    __slots__ = ("_bodies", "_is_read")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies, self._is_read = bodies, False

    def end(self, _: object = None) -> None:
        if not self._is_read:
            self._is_read = True
            self._bodies.reading -= 1


# Of the call that is being served, where grpc reads it.
_BODY: ContextVar[Body | None] = ContextVar("body", default=None)


class Bodies:
    """most: that grpc reads by itself at once. seconds: that one we read may take."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self.reading = 0
        self._timed = asyncio.Semaphore(_MOST_TIMED)
        self._of_peer: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def expect(self) -> bool:
        """Whether grpc may read the body of the current call; its task ends with the call."""
        if self.reading >= self.most:
            return False
        body = Body(self)
        self.reading += 1
        task = asyncio.current_task()
        assert task is not None, "a call is a task"
        task.add_done_callback(body.end)
        _BODY.set(body)
        return True

    @staticmethod
    def arrived() -> None:
        """The current call's body has been read."""
        if body := _BODY.get():
            body.end()

    async def read(self, context: grpc.aio.ServicerContext) -> bytes:
        """The one request of a call, in its turn. Raises TimedOut or WrongInput."""
        async with self._turn(context.peer()):
            try:
                async with asyncio.timeout(self.seconds):
                    body = await context.read()
            except TimeoutError as error:
                raise TimedOut(
                    f"the request did not come within {self.seconds:g} s of its turn; send it again"
                ) from error
        if body is grpc.aio.EOF:
            raise WrongInput("the call has no request; send one")
        return bytes(body)

    @asynccontextmanager
    async def _turn(self, peer: str) -> AsyncIterator[None]:
        own = self._of_peer.get(peer)
        if own is None:
            own = self._of_peer[peer] = asyncio.Semaphore(_MOST_TIMED_OF_PEER)
        async with own, self._timed:
            yield
