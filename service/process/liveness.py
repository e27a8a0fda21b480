"""Liveness and readiness: the event loop and the engines' threads make progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

# Readiness is asked of with less patience than liveness: callers can go elsewhere, a process that
# is killed loses what it streams.
_READINESS_SHARE = 1 / 3


class Worker(Protocol):
    """A thread of an engine. busy_since: on the monotonic clock, when it last began to take its
    inbox or a step; None while it waits for work."""

    name: str
    purpose: str

    @property
    def busy_since(self) -> float | None: ...


class Liveness:
    """Asked by any thread, which needs neither the event loop nor an engine for it.

    limit_seconds: that the loop may be without a beat, or a worker within one step.
    workers: those that are to be looked at now.
    clock: seconds, monotonic.

    After SIGSTOP and SIGCONT everything is as late as the process was stopped, until the next
    beat: whoever asks once must ask again a second later.
    """

    def __init__(
        self,
        limit_seconds: float,
        workers: Callable[[], Iterable[Worker]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit_seconds
        self._workers = workers
        self._clock = clock
        self._last_beat = clock()

    def beat(self) -> None:
        """The event loop goes on."""
        self._last_beat = self._clock()

    def why_dead(self) -> str:
        """Empty where all goes on."""
        return self._why_late(self._limit)

    def why_not_ready(self) -> str:
        """As why_dead(), sooner."""
        return self._why_late(self._limit * _READINESS_SHARE)

    def _why_late(self, limit: float) -> str:
        now = self._clock()
        if now - self._last_beat > limit:
            return f"the event loop has stood still for {now - self._last_beat:.0f} s"
        for worker in self._workers():
            since = worker.busy_since
            if since is not None and now - since > limit:
                name = f"{worker.name}-{worker.purpose}"
                return f"engine {name} has been within one step for {now - since:.0f} s"
        return ""
