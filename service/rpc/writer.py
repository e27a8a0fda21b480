"""Writing the messages of a call, with a timeout for callers that do not read."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message

from service.engine.errors import ReaderStalled, RequestError
from service.failpoints import failpoint
from service.rpc.call import ServerCall
from service.serving.output_stream import ON_GIVEN_UP


class MessageWriter:
    """The messages of one call; streams that are opened after it interrupt its writes.

    stall_seconds: how long a message may wait for its caller to read.
    """

    def __init__(self, call: ServerCall, stall_seconds: float) -> None:
        self._call = call
        self._stall_seconds = stall_seconds
        self._limit: asyncio.Timeout | None = None  # of the write under way
        self._given_up: RequestError | None = None
        ON_GIVEN_UP.set(self._interrupt)

    async def write(self, response: Message) -> None:
        """Raises ReaderStalled."""
        if self._given_up:
            raise self._given_up
        if self._call.has_room():  # a timeout costs as much as the write
            _begin()
            await self._call.write(response)
            return
        try:
            async with asyncio.timeout(self._stall_seconds) as self._limit:
                _begin()
                await self._call.write(response)
        except TimeoutError as error:
            raise self._given_up or ReaderStalled(
                f"nothing was read for {self._stall_seconds:g} s, so the stream was given up; "
                "send the request again, or go on from its last resume token"
            ) from error
        finally:
            self._limit = None

    def has_room(self) -> bool:
        """Whether write_now() may be called."""
        return self._given_up is None and self._call.has_room()

    def write_now(self, data: bytes) -> None:
        """A message that is serialized already."""
        _begin()
        self._call.write_now(data)

    def _interrupt(self, error: RequestError) -> None:
        """Its caller does not read, and its place is wanted: the write under way ends now."""
        self._given_up = error
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


def _begin() -> None:
    failpoint("rpc.write")
