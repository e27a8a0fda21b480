"""The event loop's end of a piece of work: where an engine's events wait to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from service.engine.batching import BatchDone, BatchFailed
from service.engine.requests import Event, Failed, Finished
from service.engine.threads import EngineThread


class TokenStream:
    """The events of one stream, as they come; close() it whatever happens.

    What has gathered since the last look is given at once: one token while the reader keeps
    up. At most max_tokens events can gather.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._ready = asyncio.Event()
        self._thread: EngineThread | None = None
        self._work: Any = None

    @classmethod
    def open(cls, thread: EngineThread, request: Any) -> TokenStream:
        stream = cls()
        stream._work = thread.submit(request, stream)
        stream._thread = thread
        return stream

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """Raises EngineFailed or ServiceStopping when the engine gives the stream up."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            events, self._events = self._events, []
            if isinstance(events[-1], Failed):
                raise events[-1].error
            yield events
            if isinstance(events[-1], Finished):
                return

    def close(self) -> None:
        if self._thread is not None:
            self._thread.release(self._work)
            self._thread = None


class _Answer:
    """A sink that gets one event."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def put(self, event: Any) -> None:
        if not self.future.done():
            self.future.set_result(event)


async def run_batch(thread: EngineThread, items: Sequence[Any]) -> list[Any]:
    """The results of ``items`` in order. Raises QueueFull, EngineFailed or ServiceStopping."""
    answer = _Answer()
    work = thread.submit(items, answer, len(items))
    try:
        event: BatchDone | BatchFailed = await answer.future
    finally:
        thread.release(work, len(items))
    if isinstance(event, BatchFailed):
        raise event.error
    return event.results


def deliver_to(loop: asyncio.AbstractEventLoop) -> Callable[[Sequence[tuple[Any, Any]]], None]:
    """A way for engine threads to hand a step's events to their sinks on ``loop``."""

    def dispatch(deliveries: Sequence[tuple[Any, Any]]) -> None:
        for sink, event in deliveries:
            sink.put(event)

    def deliver(deliveries: Sequence[tuple[Any, Any]]) -> None:
        if deliveries and not loop.is_closed():
            loop.call_soon_threadsafe(dispatch, deliveries)

    return deliver
