"""Dynamic batching: whole sequences that wait together run together, short ones with short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class BatchItem(Protocol):
    """One sequence to run; its length decides what it is batched with."""

    @property
    def length(self) -> int: ...


class BatchRunner(Protocol):
    def run(self, items: Sequence[Any]) -> Sequence[Any]:
        """One result for each item, all of them run as one padded batch."""


@dataclass(eq=False)
class Job:
    """The items of one request and, once they have run, their results in the same order."""

    items: Sequence[Any]
    sink: Any
    arrived: float
    results: list[Any]
    left: int


class BatchObserver(Protocol):
    def batch_ran(self, rows: int, tokens: int, seconds: float) -> None: ...

    def began(self, queue_seconds: float) -> None: ...


@dataclass(frozen=True)
class BatchDone:
    results: list[Any]


@dataclass(frozen=True)
class BatchFailed:
    message: str


class BatchEngine:
    """Runs everything that waits, longest batch ``max_rows``; idle means nothing waits.

    Used from one thread; knows time only through ``clock``.
    """

    def __init__(
        self,
        runner: BatchRunner,
        max_rows: int,
        clock: Callable[[], float],
        observer: BatchObserver,
    ) -> None:
        self.runner = runner
        self.max_rows = max_rows
        self.clock = clock
        self.observer = observer
        self._waiting: list[tuple[Job, int]] = []

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def open(self, items: Sequence[Any], sink: Any) -> Job:
        return Job(items, sink, self.clock(), [None] * len(items), len(items))

    def arrive(self, job: Job) -> None:
        self._waiting.extend((job, number) for number in range(len(job.items)))

    def cancel(self, job: Job) -> None:
        """Drop what has not run yet; the job gets no result."""
        self._waiting = [entry for entry in self._waiting if entry[0] is not job]

    def step(self) -> list[tuple[Any, Any]]:
        """Run one batch: the item that has waited longest and those nearest in length."""
        batch = self._choose()
        started = self.clock()
        for job, number in batch:
            if number == 0:
                self.observer.began(started - job.arrived)
        items = [job.items[number] for job, number in batch]
        results = self.runner.run(items)
        tokens = sum(item.length for item in items)
        self.observer.batch_ran(len(batch), tokens, self.clock() - started)
        # Only now: what a failed run was given must still be there to be told.
        ran = set(batch)
        self._waiting = [entry for entry in self._waiting if entry not in ran]
        deliveries = []
        for (job, number), result in zip(batch, results, strict=True):
            job.results[number] = result
            job.left -= 1
            if not job.left:
                deliveries.append((job.sink, BatchDone(job.results)))
        return deliveries

    def fail(self, message: str) -> list[tuple[Any, Any]]:
        jobs = {id(job): job for job, _ in self._waiting}
        self._waiting = []
        return [(job.sink, BatchFailed(message)) for job in jobs.values()]

    def _choose(self) -> list[tuple[Job, int]]:
        """Padding costs time, so the oldest item's batch is filled by likeness of length."""

        def length(place: int) -> int:
            job, number = self._waiting[place]
            return int(job.items[number].length)

        def unlike(place: int) -> int:
            return abs(length(place) - length(0))

        places = sorted(range(len(self._waiting)), key=unlike)[: self.max_rows]
        return [self._waiting[place] for place in places]
