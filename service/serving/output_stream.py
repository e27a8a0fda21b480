"""The event loop's end of a request: the buffer of an engine's events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from service.engine.dynamic_batcher import BatchEvent, BatchFailed
from service.engine.errors import RequestError
from service.engine.requests import (
    MADE,
    Event,
    Failed,
    Finished,
    Sink,
    TokenMade,
    TokensMade,
)
from service.serving.coalescing import Coalescer
from service.serving.request_timing import ENGINE_TIMES, TIMELINE
from service.serving.worker import EngineThread

# Events that may wait for the reader of one stream before it pauses, and the share of them
# that lets it go on. What waits is kept in memory, so a stream that nobody reads costs little.
FULL = 64
_LOW_SHARE = 0.25
# Of that, what is left while memory is short.
_SMALL_SHARE = 0.25


# What is to be called when a stream is given up while its messages are being written: whoever
# writes them waits for a caller that does not read. None where nothing is written meanwhile.
ON_GIVEN_UP: ContextVar[Callable[[RequestError], None] | None] = ContextVar(
    "on_given_up", default=None
)


class Dispatcher:
    """How events get from one engine's thread to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def deliver(self, sinks: Sequence[Sink[Any]]) -> None:
        """Called on the engine's thread: wake the readers that have a message's worth."""
        # Messages leave in this order: a first token does not queue behind everyone's next.
        urgent: list[Sink[Any]] = []
        others: list[Sink[Any]] = []
        for sink in sinks:
            if sink.is_due:
                (urgent if sink.is_urgent else others).append(sink)
        if (urgent or others) and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake, urgent, others)

    def _wake(self, urgent: Sequence[Sink[Any]], others: Sequence[Sink[Any]]) -> None:
        """A reader of the urgent ones is a task, which has its turn after this one; others may
        write at once."""
        for sink in urgent:
            sink.wake()
        if urgent and others:
            self.loop.call_soon(self._wake, (), others)
            return
        for sink in others:
            sink.wake()


class DirectWriter(Protocol):
    """Writes tokens without the task that reads their stream, which each message would wake."""

    def has_room(self) -> bool:
        """Whether the transport takes a message now."""

    def write(self, tokens: Sequence[TokenMade | TokensMade]) -> None:
        """One message; called on the event loop, where there is room."""


class TokenStream(Sink[Event]):
    """The events of one request, as they come; close() it whatever happens.

    put() is called by the engine's thread, everything else by the event loop. What has
    gathered is given at once. A reader that falls behind makes its streams pause.

    tokens_per_message: 0 leaves it to coalescing. Otherwise a message holds so many; fewer where
    something else is to be said, such as the end. size: how many streams the request is.
    """

    def __init__(self, coalescer: Coalescer, tokens_per_message: int = 0, size: int = 1) -> None:
        self._events: deque[Event] = deque()
        self._coalescer = coalescer
        self._tokens_per_message = tokens_per_message
        self._size = size
        self._ready = asyncio.Event()
        self._has_begun = False
        # Tokens and all else, and all else alone, put and taken: each number has one writer.
        self._put = self._taken = 0
        self._others_put = self._others_taken = 0
        self._was_full = False
        self._thread: EngineThread | None = None
        self.work: Any = None  # as the engine knows it
        self._ended: Finished | None = None
        self._timeline, self._times = TIMELINE.get(), ENGINE_TIMES.get()
        self._on_given_up = ON_GIVEN_UP.get()
        self._error: Exception | None = None  # it was given up for
        self._at_once = tokens_per_message // size or 1 if tokens_per_message else 0
        self._handed_at: float | None = None  # when its reader got what it has not written yet
        self._direct: DirectWriter | None = None
        self._is_read_from = False  # the reader waits for events
        self._full = max(FULL * min(size, 4), 2 * self._tokens_per_message)

    @classmethod
    def open(
        cls,
        thread: EngineThread,
        request: Any,
        tokens_per_message: int = 0,
        size: int = 1,
    ) -> TokenStream:
        stream = cls(thread.coalescer, tokens_per_message, size)
        stream.work = thread.submit(request, stream, size)
        stream._thread = thread
        return stream

    @classmethod
    def of_events(cls, thread: EngineThread, events: Iterable[Event]) -> TokenStream:
        """All of a request that no engine has to run. The last event is a Finished."""
        stream = cls(thread.coalescer)
        for event in events:
            stream.put(event)
        stream.wake()
        return stream

    def put(self, event: Event) -> None:
        self._events.append(event)
        if type(event) is TokensMade:
            self._put += len(event.tokens)
            return
        self._put += 1
        if type(event) not in MADE:
            self._others_put += 1

    @property
    def _waiting(self) -> int:
        """Tokens, and what is none, that were not taken."""
        return self._put - self._taken

    @property
    def _each(self) -> int:
        """Tokens that a message is worth."""
        return self._tokens_per_message or self._coalescer.tokens_per_message

    @property
    def tokens_at_once(self) -> int:
        if self._thread is not None and self._thread.are_buffers_small:
            return 1
        return self._at_once or self._coalescer.tokens_per_message // self._size or 1

    @property
    def is_urgent(self) -> bool:
        """The first token, and what is no token, wait for no other."""
        return not self._has_begun or self._others_put != self._others_taken

    def mark_if_full(self) -> bool:
        """Asked by the engine's thread, which then pauses the stream."""
        full = self._full
        if self._thread is not None and self._thread.are_buffers_small:
            full = max(1, int(_SMALL_SHARE * full))
        if self._put - self._taken < full:
            return False
        self._was_full = True
        return True

    @property
    def is_due(self) -> bool:
        return (
            self._put - self._taken >= self._each
            or self._was_full
            or not self._has_begun
            or self._others_put != self._others_taken
        )

    def write_through(self, writer: DirectWriter) -> None:
        """From its second message on, tokens go to ``writer`` while it has room and the reader
        has nothing to write; the reader gets everything else, in order."""
        self._direct = writer

    def wake(self) -> None:
        direct = self._direct
        # What is no token is the reader's, with the tokens before it.
        if (
            direct is None
            or self._error  # what follows a message that was lost would hide that
            or self._others_put != self._others_taken
            or not (self._is_read_from and self._has_begun and direct.has_room())
        ):
            self._ready.set()
            return
        try:
            while tokens := self._take_one() or self._take_tokens():
                direct.write(tokens)
                if not (self._tokens_per_message and direct.has_room()):
                    break
            # Also where there is none: it may have been paused when they were taken already.
            if self._was_full:
                self._let_go_on()
        except Exception as error:  # it is this stream's alone; its reader raises it
            self._error = error
            self._ready.set()
            return
        # Where there was no room for all of it: what comes wakes it again, but not for one more
        # message of as many tokens.
        if 0 < self._tokens_per_message <= self._put - self._taken:
            self._ready.set()

    def _take_one(self) -> tuple[TokenMade, ...]:
        """What _take_tokens() does, for most messages of one token."""
        events = self._events
        if self._tokens_per_message != 1 or not events:
            return ()
        event = events[0]
        if type(event) is not TokenMade:
            return ()
        events.popleft()
        self._taken += 1
        if self._thread is not None:
            self._thread.count_message(1)
        return (event,)

    def _take_tokens(self) -> list[TokenMade | TokensMade]:
        """What the next message holds; the engine may put what is no token behind it."""
        tokens: list[TokenMade | TokensMade] = []
        if self._waiting < self._tokens_per_message:
            return tokens
        events, limit = self._events, self._tokens_per_message or self._full
        count = 0
        while events and count < limit:
            event = events[0]
            if type(event) is TokenMade:
                count += 1
            elif type(event) is TokensMade:
                event = self._cut(event, limit - count)
                count += len(event.tokens)
            else:
                break
            tokens.append(event)
            events.popleft()
        self._count_taken(count)
        return tokens

    def _cut(self, first: TokensMade, tokens: int) -> TokensMade:
        """So many of the tokens that come first, as the first event, and the others behind it."""
        if len(first.tokens) > tokens:
            first, self._events[0] = first.split(tokens)
            self._events.appendleft(first)
        return first

    def _count_taken(self, tokens: int) -> None:
        """Of which a message is."""
        self._taken += tokens
        if tokens and self._thread is not None:
            self._thread.count_message(tokens)

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """Raises EngineFailed or ServiceStopping when the engine gives the request up, and what
        give_up() was called with."""
        while True:
            self._is_read_from = True
            await self._ready.wait()
            self._is_read_from = False
            if self._error:
                raise self._error
            self._ready.clear()
            events = self._take()
            if events:
                last = events[-1]
                if isinstance(last, Failed):
                    raise last.error
                if isinstance(last, Finished):
                    self._ended = last
                if self._thread is not None:
                    self._handed_at = self._thread.clock()
                yield events
                self._handed_at = None
                if self._ended:
                    return
            self._let_go_on()

    def _take(self) -> list[Event]:
        """What goes into one message: so many tokens, with all that follows them."""
        events: list[Event] = []
        if self._tokens_per_message and not self.is_due:
            return events
        tokens, limit = 0, self._tokens_per_message or self._full
        while self._events:
            event = self._events[0]
            is_made = type(event) in MADE
            if is_made and tokens == limit:
                self._ready.set()
                break
            if type(event) is TokensMade:
                event = self._cut(event, limit - tokens)
                tokens += len(event.tokens)
                events += event.one_by_one()
            else:
                events.append(event)
                tokens += is_made
                self._others_taken += not is_made
                self._taken += not is_made
            self._events.popleft()
        self._has_begun |= bool(events)
        self._count_taken(tokens)
        return events

    def _let_go_on(self) -> None:
        """Wake the request's streams once little enough waits."""
        if self._was_full and self._waiting <= _LOW_SHARE * self._full and self._thread is not None:
            self._was_full = False
            self._thread.resume(self.work)

    @property
    def unread_since(self) -> float | None:
        """Since when its reader has been writing one message while its streams pause, on the
        engines' clock; None for one that is not behind."""
        return self._handed_at if self._was_full else None

    def give_up(self, error: RequestError) -> None:
        """Free its place now; its reader gets ``error``, even in the midst of a write."""
        self._error = error
        self.close()
        self._events.clear()
        self._taken = self._put
        self._ready.set()
        if self._on_given_up:
            self._on_given_up(error)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.release(self.work)
            self._thread = None
            if self._timeline:
                self._timeline.note_stream(self.work, self._ended)
            if self._times and self._ended:
                self._times.add_stream(self.work)


class _Answer(Sink[BatchEvent]):
    """A sink that gets one event."""

    def __init__(self) -> None:
        self.future: asyncio.Future[BatchEvent] = asyncio.get_running_loop().create_future()
        self._event: BatchEvent | None = None

    def put(self, event: BatchEvent) -> None:
        self._event = event

    def wake(self) -> None:
        if self._event and not self.future.done():
            self.future.set_result(self._event)


async def run_batch(thread: EngineThread, items: Sequence[Any]) -> list[Any]:
    """The results of ``items`` in order. Raises QueueFull, EngineFailed or ServiceStopping."""
    answer = _Answer()
    work = thread.submit(items, answer, len(items))
    event: BatchEvent | None = None
    try:
        event = await answer.future
    finally:
        thread.release(work, has_ended=event is not None)
        if timeline := TIMELINE.get():
            timeline.note_batch(work)
    if isinstance(event, BatchFailed):
        raise event.error
    if times := ENGINE_TIMES.get():
        times.add_batch(work)
    return event.results
