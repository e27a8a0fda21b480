"""Dynamic batching: whole sequences that wait together run together, sorted by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.engine.errors import RequestError
from service.engine.finiteness import not_finite
from service.engine.open_work import Ahead
from service.engine.requests import Sink
from service.engine.shares import NOBODY, Share
from service.engine.text_queue import Text, TextQueue
from service.failpoints import failpoint

# Padded tokens of a batch for each token of text.
_PADDING_LIMIT = 2.0


class BatchItem(Protocol):
    """One sequence to run; its length decides what it is batched with."""

    @property
    def length(self) -> int: ...


class BatchRunner(Protocol):
    def run(self, items: Sequence[Any]) -> Iterator[Sequence[Any] | None]:
        """Run the items as one padded batch, piece by piece.

        Yields None after every piece but the last, then one result for each item: None where
        the model computed NaN or infinity.
        """


class BatchObserver(Protocol):
    def batch_ran(self, rows: int, tokens: int, seconds: float) -> None: ...

    def began(self, queue_seconds: float) -> None: ...

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        """Of a request: until its first batch began, and of all batches that held its items."""

    def not_finite(self) -> None:
        """A request failed since the model computed NaN or infinity for it."""


@dataclass(frozen=True)
class BatchDone:
    results: list[Any]


@dataclass(frozen=True)
class BatchFailed:
    error: RequestError


BatchEvent = BatchDone | BatchFailed


@dataclass(eq=False)
class Job:
    """The items of one request and, once they have run, their results in the same order."""

    items: Sequence[BatchItem]
    sink: Sink[BatchEvent]
    arrived: float
    results: list[Any]
    left: int  # items without a result
    share: Share = NOBODY
    waiting: int = 0  # items that have not begun to run
    queue_seconds: float | None = None  # until its first batch began; None before that
    compute_seconds: float = 0.0  # of the batches that held any of its items
    finished: float | None = None  # when its last batch did
    is_gone: bool = False


@dataclass
class _Batch:
    """What runs now, and the runner's pieces."""

    entries: list[Text[Job]]
    pieces: Iterator[Sequence[Any] | None]
    started: float

    @property
    def is_wanted(self) -> bool:
        return not all(text.job.is_gone for text in self.entries)


class BatchEngine:
    """Runs everything that waits, longest batch ``max_rows``; idle means nothing waits.

    Callers share batches by the lengths of their texts, in proportion to their weights.

    delay_share: of a batch's time that what came up during it may wait for company. Whoever
    finds the engine idle never waits.

    Used from one thread; knows time only through ``clock``.
    """

    waits_for = "a batch"

    def __init__(
        self,
        runner: BatchRunner,
        max_rows: int,
        clock: Callable[[], float],
        observer: BatchObserver,
        delay_share: float = 1.0,
    ) -> None:
        self.runner = runner
        self.max_rows = max_rows
        self.clock = clock
        self.observer = observer
        self.delay_share = delay_share
        self._waiting: TextQueue[Job] = TextQueue()
        self._text_seconds = 0.0  # of one text of a batch, smoothed
        self._came = 0  # requests during the batch under way
        self._batch: _Batch | None = None
        self._ended = 0.0  # when the last batch did
        self._gap = 0.0  # seconds between two arrivals while batches ran, smoothed
        self._last_batch = 0.0  # seconds

    @property
    def is_idle(self) -> bool:
        return not (self._waiting or self._batch)

    def open(
        self, items: Sequence[BatchItem], sink: Sink[BatchEvent], share: Share = NOBODY
    ) -> Job:
        """On any thread: of the engine, only its clock is asked."""
        return Job(items, sink, self.clock(), [None] * len(items), len(items), share)

    def cost(self, items: Sequence[BatchItem]) -> float:
        return float(len(items))

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        """Until the caller's texts that wait have run, in the batches that are its share."""
        if ahead.size < self.max_rows:
            return 0.0
        share = max(ahead.share, 1 - ahead.others / self.max_rows)
        return ahead.size * self._text_seconds / share

    @property
    def batching_delay(self) -> float:
        """Seconds for which more texts are worth waiting for before the next step.

        Only while requests come so densely that one is due within them, and never for long:
        a share of what the last batch took, counted from its end.
        """
        if self._batch or not self._waiting or len(self._waiting) >= self.max_rows:
            return 0.0
        most = self.delay_share * self._last_batch
        if not 0.0 < self._gap < most:
            return 0.0
        return max(0.0, self._ended + most - self.clock())

    def arrive(self, job: Job) -> None:
        lengths = [item.length for item in job.items]
        job.waiting = len(lengths)
        for number, length in enumerate(lengths):
            self._waiting.push(job, number, length, job.share)
        self._came += self._batch is not None and job.arrived > self._batch.started

    def resume(self, job: Job) -> None:
        """A job has one answer; there is nothing to pause."""

    def cancel(self, job: Job) -> None:
        """Drop what has not run yet; the job gets no result."""
        if not job.left or job.is_gone:
            return
        job.is_gone = True
        self._waiting.forget(job, job.waiting)
        if self._batch and not self._batch.is_wanted:
            self._batch = None

    def step(self) -> list[Sink[BatchEvent]]:
        """Run one piece of the batch under way, or of the next one."""
        batch = self._batch or self._begin()
        failpoint("engine.predict")
        results = next(batch.pieces)
        if results is None:
            return []
        self._learn(batch)
        tokens = sum(text.length for text in batch.entries)
        self.observer.batch_ran(len(batch.entries), tokens, self._last_batch)
        for job in {id(text.job): text.job for text in batch.entries}.values():
            job.compute_seconds += self._last_batch
        answered = self._hand_out(batch, results)
        self._batch = None  # not before: what breaks on the way is given up with its jobs
        return answered

    def hand_over(self, error: RequestError) -> list[Sink[BatchEvent]]:
        """Nothing: whole texts are answered soon."""
        return []

    def reject(self, job: Job, error: RequestError) -> list[Sink[BatchEvent]]:
        """Give up a job of which arrive() raised: none of its items waits."""
        job.is_gone = True
        job.sink.put(BatchFailed(error))
        return [job.sink]

    def fail(self, error: RequestError) -> list[Sink[BatchEvent]]:
        """Give up every job; each gets ``error``."""
        running = self._batch.entries if self._batch else []
        jobs = {id(text.job): text.job for text in (*running, *self._waiting.everything())}
        self._waiting, self._batch = TextQueue(), None
        failed = [job for job in jobs.values() if not job.is_gone]
        for job in failed:
            job.is_gone = True
            job.sink.put(BatchFailed(error))
        return [job.sink for job in failed]

    def _begin(self) -> _Batch:
        entries = self._waiting.take(self.max_rows, _PADDING_LIMIT)
        started = self.clock()
        self._came = 0
        for text in entries:
            job = text.job
            job.waiting -= 1
            if job.queue_seconds is None:
                job.queue_seconds = started - job.arrived
                self.observer.began(job.queue_seconds)
        # Kept before it runs: where the runner raises, fail() still knows whose texts these were.
        self._batch = _Batch(entries, iter(()), started)
        self._batch.pieces = self.runner.run([text.job.items[text.number] for text in entries])
        return self._batch

    def _learn(self, batch: _Batch) -> None:
        """How dense arrivals are: what came up during this batch, and how long that took."""
        self._ended = self.clock()
        self._last_batch = self._ended - batch.started
        each = self._last_batch / len(batch.entries)
        self._text_seconds = each if not self._text_seconds else 0.5 * (each + self._text_seconds)
        gap = self._last_batch / self._came if self._came else 0.0
        self._gap = gap if not (gap and self._gap) else 0.5 * (gap + self._gap)

    def _hand_out(self, batch: _Batch, results: Sequence[Any]) -> list[Sink[BatchEvent]]:
        answered = []
        for text, result in zip(batch.entries, results, strict=True):
            job = text.job
            if result is None and not job.is_gone:
                self._fail_alone(job)
                answered.append(job.sink)
            job.results[text.number] = result
            job.left -= 1
            if not (job.left or job.is_gone):
                job.finished = self._ended
                self.observer.answered(job.queue_seconds or 0.0, job.compute_seconds)
                job.sink.put(BatchDone(job.results))
                answered.append(job.sink)
        return answered

    def _fail_alone(self, job: Job) -> None:
        """The others of its batch are answered."""
        job.is_gone = True
        self._waiting.forget(job, job.waiting)
        self.observer.not_finite()
        job.sink.put(BatchFailed(not_finite()))
