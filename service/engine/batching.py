"""Dynamic batching: whole sequences that wait together run together, short ones with short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.engine.errors import RequestError


class BatchItem(Protocol):
    """One sequence to run; its length decides what it is batched with."""

    @property
    def length(self) -> int: ...


class BatchRunner(Protocol):
    def run(self, items: Sequence[Any]) -> Iterator[Sequence[Any] | None]:
        """Run the items as one padded batch, piece by piece.

        Yields None after every piece but the last, then one result for each item.
        """


class BatchObserver(Protocol):
    def batch_ran(self, rows: int, tokens: int, seconds: float) -> None: ...

    def began(self, queue_seconds: float) -> None: ...


@dataclass(frozen=True)
class BatchDone:
    results: list[Any]


@dataclass(frozen=True)
class BatchFailed:
    error: RequestError


@dataclass(eq=False)
class Job:
    """The items of one request and, once they have run, their results in the same order."""

    items: Sequence[BatchItem]
    sink: Any
    arrived: float
    results: list[Any]
    left: int  # items without a result
    has_begun: bool = False
    is_gone: bool = False


@dataclass
class _Batch:
    """What runs now: (job, place of the item in it), and the runner's pieces."""

    entries: list[tuple[Job, int]]
    pieces: Iterator[Sequence[Any] | None]
    started: float

    @property
    def is_wanted(self) -> bool:
        return not all(job.is_gone for job, _ in self.entries)


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
        self._batch: _Batch | None = None

    @property
    def is_idle(self) -> bool:
        return not (self._waiting or self._batch)

    def open(self, items: Sequence[BatchItem], sink: Any) -> Job:
        return Job(items, sink, self.clock(), [None] * len(items), len(items))

    def arrive(self, job: Job) -> None:
        self._waiting.extend((job, number) for number in range(len(job.items)))

    def resume(self, job: Job) -> None:
        """A job has one answer; there is nothing to pause."""

    def cancel(self, job: Job) -> None:
        """Drop what has not run yet; the job gets no result."""
        if not job.left:
            return
        job.is_gone = True
        self._waiting = [entry for entry in self._waiting if entry[0] is not job]
        if self._batch and not self._batch.is_wanted:
            self._batch = None

    def step(self) -> list[Any]:
        """Run one piece of the batch under way, or of the next one."""
        if self._batch is None:
            self._batch = self._begin()
        results = next(self._batch.pieces)
        if results is None:
            return []
        batch, self._batch = self._batch, None
        tokens = sum(job.items[number].length for job, number in batch.entries)
        self.observer.batch_ran(len(batch.entries), tokens, self.clock() - batch.started)
        return self._hand_out(batch, results)

    def fail(self, error: RequestError) -> list[Any]:
        """Give up every job; each gets ``error``."""
        running = self._batch.entries if self._batch else []
        jobs = {id(job): job for job, _ in (*running, *self._waiting)}
        self._waiting, self._batch = [], None
        failed = [job for job in jobs.values() if not job.is_gone]
        for job in failed:
            job.sink.put(BatchFailed(error))
        return [job.sink for job in failed]

    def _begin(self) -> _Batch:
        entries = self._choose()
        started = self.clock()
        for job, _ in entries:
            if not job.has_begun:
                job.has_begun = True
                self.observer.began(started - job.arrived)
        pieces = self.runner.run([job.items[number] for job, number in entries])
        taken = set(entries)
        self._waiting = [entry for entry in self._waiting if entry not in taken]
        return _Batch(entries, pieces, started)

    def _choose(self) -> list[tuple[Job, int]]:
        """Padding costs time, so the oldest item's batch is filled by likeness of length."""

        def length(place: int) -> int:
            job, number = self._waiting[place]
            return job.items[number].length

        def unlike(place: int) -> int:
            return abs(length(place) - length(0))

        places = sorted(range(len(self._waiting)), key=unlike)[: self.max_rows]
        return [self._waiting[place] for place in places]

    def _hand_out(self, batch: _Batch, results: Sequence[Any]) -> list[Any]:
        answered = []
        for (job, number), result in zip(batch.entries, results, strict=True):
            job.results[number] = result
            job.left -= 1
            if not (job.left or job.is_gone):
                job.sink.put(BatchDone(job.results))
                answered.append(job.sink)
        return answered
