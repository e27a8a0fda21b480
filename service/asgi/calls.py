"""What every call passes between its headers and its status, whichever protocol carries it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

from google.protobuf.message import Message

from service.access.codes import Code
from service.asgi.request import Bodies
from service.engine.errors import RequestError
from service.front_end import FrontEndSettings
from service.rpc.call import ServerCall
from service.rpc.methods import Method
from service.rpc.pipeline import Pipeline
from service.rpc.status import OK, Status, status_of

_LATE = Status(Code.DEADLINE_EXCEEDED, "the call's deadline has passed")
_STOPPING = Status(Code.UNAVAILABLE, "the server is stopping; send the request to another one")

# For the status of a call that is cut off.
_STATUS_SECONDS = 1.0


class OpenCall(ServerCall, Protocol):
    """A call that is to be answered and ended."""

    async def request(self) -> bytes:
        """The one request of a call that has one. Raises RequestError."""

    async def end(self, status: Status, message: Message | None = None) -> None:
        """With the last message, where the call has one."""


class CallServer:
    """Serves calls of methods: metadata within its limit, identity, deadline, the method, a status.

    Nothing of a call's body is read before it is known whose call it is.
    """

    def __init__(self, pipeline: Pipeline, settings: FrontEndSettings) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.bodies = Bodies(settings, pipeline.admission.budget)

    def serve(
        self, method: Method, call: OpenCall, metadata_bytes: int
    ) -> Coroutine[Any, Any, None]:
        """To be awaited at once, in the task of the call.

        metadata_bytes: of the headers that the call brought, as header_bytes() has it.
        """
        # No coroutine itself: each that a call passes costs as much as what it does here.
        most = self.settings.max_metadata_bytes
        if metadata_bytes > most:
            message = f"metadata size exceeds limit ({most} bytes)"
            return call.end(Status(Code.RESOURCE_EXHAUSTED, message))
        try:
            self.pipeline.identify(method, call.metadata)
        except RequestError as error:
            self.pipeline.refuse(call, error)
            return call.end(status_of(error))
        left = call.seconds_left()
        return self._serve(method, call) if left is None else self._in_time(method, call, left)

    async def _in_time(self, method: Method, call: OpenCall, left: float) -> None:
        try:
            async with asyncio.timeout(left) as deadline:
                await self._serve(method, call, deadline)
        except TimeoutError:
            pass  # the caller knows

    async def _serve(
        self, method: Method, call: OpenCall, deadline: asyncio.Timeout | None = None
    ) -> None:
        response: Message | None = None
        try:
            if method.reads_several:
                failure = await self.pipeline.serve(method, call)
            else:
                response, failure = await self.pipeline.answer(method, call, call.request())
        except asyncio.CancelledError:
            # For a caller that is still there: its deadline has passed, or the server stops. The
            # clock does not say which: timers may be a moment early.
            is_late = deadline is not None and deadline.expired()
            status = _LATE if is_late else _STOPPING
            with contextlib.suppress(TimeoutError):  # one that does not read
                async with asyncio.timeout(_STATUS_SECONDS):
                    await call.end(status)
            raise
        if failure is None:
            await call.end(OK, response)
        else:
            await call.end(status_of(failure))
