"""The worker: the thread of an engine, and the only way to reach that engine."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from service.engine.errors import (
    EngineFailed,
    QueueFull,
    ReaderStalled,
    RequestError,
    ServiceStopping,
)
from service.engine.open_work import Ahead, OpenWork
from service.engine.requests import Sink
from service.engine.shares import SHARE, Share
from service.failpoints import failpoint
from service.serving.coalescing import Clock, Coalescer

log = logging.getLogger(__name__)

# What a caller should wait when the queue is full, in seconds.
RETRY_AFTER_SECONDS = 0.5


# What the engine is to do, and with what.
Message = tuple[Callable[[Any], None], Any]


class Engine(Protocol):
    """waits_for: what new work gets when its turn comes, in a caller's words."""

    waits_for: str

    @property
    def is_idle(self) -> bool: ...

    @property
    def batching_delay(self) -> float:
        """Seconds that the next step may wait for more work."""

    # Called by the event loop: a refusal does not wait for the step under way. Nothing is changed,
    # and what is read are single numbers, which the engine's thread writes one by one; an estimate
    # may be of the step before.

    def open(self, request: Any, sink: Sink[Any], share: Share) -> Any:
        """``request`` as work that has not arrived; nothing of the engine's is touched."""

    def cost(self, request: Any) -> float:
        """What ``request`` will take, by what was seen so far, in a unit of the engine's own."""

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        """How long new work would wait; 0 where that is not known, or not at all.

        coming: pieces of work that are on their way to the engine.
        """

    # Called on the engine's thread, as all that follows.

    def arrive(self, work: Any) -> None:
        """Begin the work. Where that raises, nothing of the engine's was changed."""

    def reject(self, work: Any, error: RequestError) -> Sequence[Sink[Any]]:
        """End work of which arrive() raised with ``error``."""

    def resume(self, work: Any) -> None: ...

    def cancel(self, work: Any) -> None: ...

    def step(self) -> Sequence[Sink[Any]]: ...

    def hand_over(self, error: RequestError) -> Sequence[Sink[Any]]:
        """End what can go on elsewhere; ``error`` for what cannot, and is not soon done."""

    def fail(self, error: RequestError) -> Sequence[Sink[Any]]: ...


class EngineThread:
    """Takes work in, steps the engine while there is any, says whose events came up.

    name: of the model, as callers know it; purpose: which of its engines this is.
    limit: how much work may be open at once, running and waiting together.
    deliver: called on this thread with the sinks that got events in a step.
    on_failure: called on this thread when the engine breaks; it takes no work from then on.
    coalescer: learns from each step how much the engine is held up.
    clock: the engines', in seconds.
    call_soon: the event loop's. What one turn of it has for the engine reaches it together then, so
    that it wakes once, and finds a batch. None: at once.

    submit(), resume(), release(), count_message() and close() are called from one other thread,
    the event loop's.
    """

    def __init__(
        self,
        name: str,
        purpose: str,
        engine: Engine,
        limit: int,
        deliver: Callable[[Sequence[Sink[Any]]], None],
        on_failure: Callable[[], None],
        coalescer: Coalescer | None = None,
        clock: Clock = time.monotonic,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.limit = limit
        self.are_buffers_small = False  # of its streams, while memory is short
        self.clock = clock
        self.given_up = 0  # streams whose places were taken since nobody read them
        self.too_late = 0  # requests that were refused since their deadline could not be met
        self._open_work = OpenWork(limit, clock)
        self.messages = 0  # with tokens, that its streams were read as
        self.message_tokens = 0
        self.failure: EngineFailed | None = None
        self._deliver = deliver
        self._on_failure = on_failure
        self.coalescer = coalescer or Coalescer(0.0)
        self._call_soon = call_soon
        self._posted: list[Message] = []  # and not put into the inbox yet
        self._inbox: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()
        # Messages, ever: each number has one writer.
        self._sent = self._handled = 0
        self._taken: deque[Message] = deque()  # out of the inbox
        # Sinks that got events in a step and were not delivered yet.
        self._undelivered: Sequence[Sink[Any]] = ()
        # Requests that were still open when it was to end.
        self.left_over = 0
        self._stopping = False
        # When it last began to take its inbox or a step, in seconds, monotonic; None while it
        # waits for work. Any thread may read it.
        self.busy_since: float | None = None
        self._has_handed_over = False
        self._is_closed = False
        self.purpose = purpose
        # Made when it starts: until then nothing holds on to an engine that is given up.
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        name = f"{self.name}-{self.purpose}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, action: Callable[[Any], None], subject: Any) -> None:
        """Call ``action(subject)`` on the engine's thread, between two steps."""
        self._send(action, subject)

    def hand_over(self) -> None:
        """Have what still runs end with what others go on from, and take no more work."""
        self._has_handed_over = True
        error = ServiceStopping("the server is stopping; send the request to another one")
        self._send(self._hand_over, error)
        self._put_posted()

    def close(self) -> None:
        """Take no more work, let the step under way end and give up what is left."""
        if not self._is_closed:
            self._is_closed = True
            self._send(self._stop, None)
            self._put_posted()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the thread, once it is closed; one that was never started has ended.

        seconds: to wait at most. Returns whether it has ended.
        """
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self, seconds: float | None = None) -> bool:
        """close(), then join()."""
        self.close()
        return self.join(seconds)

    def submit(self, request: Any, sink: Sink[Any], size: int = 1) -> Any:
        """Open work for ``request``; its events go to ``sink``. Pair with release().

        size: how much of the limit it takes. Work of any size is let in when none is open.
        Whose it is, is what SHARE says.

        Raises QueueFull, EngineFailed or, once it is closed or has handed over, ServiceStopping.
        """
        self._check_open()
        share = SHARE.get()
        self._check_deadline(share)
        self._make_room(share, size)
        work = self.engine.open(request, sink, share)
        self._open_work.open(work, sink, share, size, self.engine.cost(request))
        self._send(self._arrive, work)
        return work

    @property
    def open_work(self) -> int:
        return self._open_work.size

    def _check_open(self) -> None:
        if self.failure:
            raise self.failure
        if self._is_closed:
            # Nobody reads the inbox any more: what is put there would never be answered.
            raise ServiceStopping(f"model {self.name!r} has stopped; send the request again")
        if self._has_handed_over:
            # It came too late to be handed over, and would run until it is cut off.
            raise ServiceStopping("the server is stopping; send the request to another one")

    def _check_deadline(self, share: Share) -> None:
        if share.deadline is None:
            return
        coming = self._sent - self._handled
        wait = self.engine.wait_seconds(self._open_work.ahead(share), coming)
        left = max(0.0, share.deadline - self.clock())
        if wait > left:
            self.too_late += 1
            raise QueueFull(
                f"the request would wait about {_rounded(wait)} s for {self.engine.waits_for} of "
                f"model {self.name!r}, and its deadline is in {_rounded(left)} s; try again later, "
                "give it more time, or ask another server",
                wait,
            )

    def _make_room(self, share: Share, size: int) -> None:
        work = self._open_work
        if not work.has_room(size):
            self._give_up_unread(size)
        if work.has_room(size) or work.has_reserve(share, size):
            return
        raise QueueFull(
            f"model {self.name!r} has {work.size} requests running or waiting and takes "
            f"{self.limit}, of which {int(work.fair_size(share))} are your share and "
            f"{work.ahead(share).size} are yours; try again later",
            RETRY_AFTER_SECONDS,
        )

    def _give_up_unread(self, size: int) -> None:
        """Streams that nobody reads give up their places first."""
        for since, sink in self._open_work.unread():
            if self._open_work.has_room(size):
                return
            self.given_up += 1
            seconds = self.clock() - since
            sink.give_up(
                ReaderStalled(
                    f"nothing was read for {_rounded(seconds)} s while others waited for a place "
                    f"at model {self.name!r}, so the stream was given up; read as it comes, send "
                    "the request again, or go on from its last resume token"
                )
            )

    def resume(self, work: Any) -> None:
        """The reader of ``work`` has caught up."""
        self._send(self.engine.resume, work)

    def release(self, work: Any, has_ended: bool = False) -> None:
        """The caller is done with ``work``, finished or not; what still runs is cancelled.

        has_ended: where nothing of it does, since the engine has put its last event.
        """
        self._open_work.close(work)
        if not has_ended:
            self._send(self.engine.cancel, work)

    def count_message(self, tokens: int) -> None:
        """A message of so many tokens leaves one of its streams."""
        self.messages += 1
        self.message_tokens += tokens

    def _send(self, action: Callable[[Any], None], subject: Any) -> None:
        """From the event loop to the engine."""
        self._sent += 1
        self._posted.append((action, subject))
        if self._call_soon is None:
            self._put_posted()
        elif len(self._posted) == 1:
            self._call_soon(self._put_posted)

    def _put_posted(self) -> None:
        posted, self._posted = self._posted, []
        if posted:
            self._inbox.put(posted)

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("an engine of model %s failed", self.name)
            self.failure = EngineFailed(
                f"the engine of model {self.name!r} failed; see the server's log"
            )
            self._on_failure()
        self._give_up(self.failure or ServiceStopping("the server has stopped; ask another one"))

    def _work(self) -> None:
        while not self._stopping:
            self.busy_since = time.monotonic()
            self._take_messages()
            if not (self._stopping or self.engine.is_idle):
                self.coalescer.begin()
                self._undelivered = self.engine.step()
                self.coalescer.end()
                failpoint("engine.deliver")
                self._deliver(self._undelivered)
                self._undelivered = ()

    def _give_up(self, error: RequestError) -> None:
        """Fail whoever is left, and after a failure whoever was already on the way."""
        left = self.engine.fail(error)
        self.left_over = 0 if self.failure else len(left)
        # What the step before the failure answered is the engine's no more.
        self._deliver([*self._undelivered, *left])
        self.busy_since = None
        while not self._stopping:
            if not self._taken:
                self._taken.extend(self._inbox.get())
            self._handle(self._taken.popleft())
            self._deliver(self.engine.fail(error))

    def _take_messages(self) -> None:
        """Everything that has come in; waits for something only when there is nothing to do,
        or when the engine thinks that more is about to come."""
        if self.engine.is_idle:
            self.coalescer.rest()
            self.busy_since = None
            self._taken.extend(self._inbox.get())
            self.busy_since = time.monotonic()
        elif batching_delay := self.engine.batching_delay:
            self._wait(batching_delay)
        while self._taken or not self._inbox.empty():
            if not self._taken:
                self._taken.extend(self._inbox.get())
            self._handle(self._taken.popleft())

    def _wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._taken.extend(self._inbox.get(timeout=seconds))

    def _handle(self, message: Message) -> None:
        """What it raises is the engine's end: the messages behind it are not lost then."""
        action, work = message
        self._handled += 1
        action(work)

    def _arrive(self, work: Any) -> None:
        """Work that cannot be begun costs nobody else anything."""
        try:
            self.engine.arrive(work)
        except Exception:
            log.exception("a request to model %s could not be begun", self.name)
            error = EngineFailed("the request could not be begun; see the server's log")
            self._deliver(self.engine.reject(work, error))

    def _hand_over(self, error: ServiceStopping) -> None:
        failpoint("engine.hand_over")
        self._deliver(self.engine.hand_over(error))

    def _stop(self, _: None) -> None:
        self._stopping = True


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"
