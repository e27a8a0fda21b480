"""The thread an engine runs on, and the only way to reach that engine from elsewhere."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from service.engine.errors import EngineFailed, QueueFull

log = logging.getLogger(__name__)

# What a caller is told to wait when the queue is full, in seconds.
RETRY_AFTER_SECONDS = 0.5


class Engine(Protocol):
    @property
    def is_idle(self) -> bool: ...

    def open(self, request: Any, sink: Any) -> Any: ...

    def arrive(self, work: Any) -> None: ...

    def cancel(self, work: Any) -> None: ...

    def step(self) -> list[tuple[Any, Any]]: ...

    def fail(self, message: str) -> list[tuple[Any, Any]]: ...


class EngineThread:
    """Takes work in, steps the engine while there is any, hands events out.

    limit: the most pieces of work that may be open at once, running and waiting together.
    deliver: called on this thread with each step's events. on_failure: called on this thread
    when the engine breaks; it takes no work from then on.

    submit() and cancel() are called from one other thread, the event loop's.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        limit: int,
        deliver: Callable[[Sequence[tuple[Any, Any]]], None],
        on_failure: Callable[[], None],
    ) -> None:
        self.name = name
        self.engine = engine
        self.limit = limit
        self.failure: str | None = None
        self._deliver = deliver
        self._on_failure = on_failure
        self._open = 0
        self._inbox: queue.SimpleQueue[tuple[Callable[[Any], None], Any]] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the step under way end, give up what is left, and wait for the thread."""
        self._inbox.put((self._stop, None))
        self._thread.join()

    def submit(self, request: Any, sink: Any) -> Any:
        """Open work for ``request``; its events go to ``sink``. Pair with release().

        Raises QueueFull or EngineFailed.
        """
        if self.failure:
            raise EngineFailed(self.failure)
        if self._open >= self.limit:
            raise QueueFull(
                f"{self.name}: {self._open} requests are running or waiting, as many as may; "
                "try again later",
                RETRY_AFTER_SECONDS,
            )
        self._open += 1
        work = self.engine.open(request, sink)
        self._inbox.put((self.engine.arrive, work))
        return work

    def release(self, work: Any) -> None:
        """The caller is done with ``work``, finished or not; what still runs is cancelled."""
        self._open -= 1
        self._inbox.put((self.engine.cancel, work))

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("engine %s failed", self.name)
            self.failure = f"the engine of {self.name} failed; see the server's log"
            self._on_failure()
        self._give_up(self.failure or "the service is stopping")

    def _work(self) -> None:
        while not self._stopping:
            self._take_messages()
            if not (self._stopping or self.engine.is_idle):
                self._deliver(self.engine.step())

    def _give_up(self, reason: str) -> None:
        """Tell whoever is left, and after a failure whoever was already on the way."""
        self._deliver(self.engine.fail(reason))
        while not self._stopping:
            self._handle(self._inbox.get())
            self._deliver(self.engine.fail(reason))

    def _take_messages(self) -> None:
        """Everything that has come in; waits for something only when there is nothing to do."""
        if self.engine.is_idle:
            self._handle(self._inbox.get())
        while not self._inbox.empty():
            self._handle(self._inbox.get())

    def _handle(self, message: tuple[Callable[[Any], None], Any]) -> None:
        action, work = message
        action(work)

    def _stop(self, _: None) -> None:
        self._stopping = True
