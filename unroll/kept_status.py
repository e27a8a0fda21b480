"""The status of a call into which messages are sent, as its server sent it.

Where a message cannot be sent because the server has ended the call, grpcio's asyncio sets an error
of its own in the place of the server's status (grpc#36066), after that has come or shortly before.
Either way the server's is set, too, and whoever is called back then can read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from unroll.failover import has_lost_its_reason
from unroll.types import RequestFailed, to_failure

# For a status that comes after the error: it is on the same connection as that.
_WAIT_SECONDS = 1.0


class KeptStatus:
    """call: one of grpc.aio that has just begun; on its event loop."""

    def __init__(self, call: Any) -> None:
        self._failure: RequestFailed | None = None
        self._has_come = asyncio.Event()
        call.add_done_callback(self._note)

    def _note(self, call: Any) -> None:
        if self._has_come.is_set():
            return
        code, details = _at_once(call.code()), _at_once(call.details())
        if code is not grpc.StatusCode.OK:
            sent = grpc.aio.AioRpcError(
                code, grpc.aio.Metadata(), _at_once(call.trailing_metadata()), details
            )
            failure = to_failure(sent)
            if has_lost_its_reason(failure):
                return
            self._failure = failure
        self._has_come.set()

    async def in_place_of(self, failure: RequestFailed) -> RequestFailed | None:
        """Why the server ended the call, None where it ended it well; ``failure`` itself where gRPC
        did not replace anything, or nothing else came."""
        if not has_lost_its_reason(failure):
            return failure
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._has_come.wait()
        except TimeoutError:
            return failure
        return self._failure


def _at_once(reading: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for: of a call that is done."""
    try:
        reading.send(None)
    except StopIteration as done:
        return done.value
    reading.close()
    raise AssertionError("the call is done")
