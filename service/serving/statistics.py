"""Statistics of one version of a model since it was loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_NANOSECONDS = 1e9
_MILLISECONDS = 1e3


@dataclass(frozen=True)
class Duration:
    """So many times something happened, and how long it took in all."""

    count: int = 0
    nanoseconds: int = 0


@dataclass(frozen=True)
class StatisticsSnapshot:
    """What was counted up to one moment.

    success, fail: calls, from their arrival to their end. queue, compute_infer: requests that an
    engine answered, while they waited and while it worked on them. compute_input,
    compute_output: successful calls, while their transport converted.
    inference_count: inputs of the successful calls. execution_count: batches and decode steps
    that ran. batches: those by their rows. last_inference_ms: when something last ran or
    succeeded, since 1970; 0 for never.
    """

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    inference_count: int
    execution_count: int
    batches: Mapping[int, Duration]
    last_inference_ms: int


@dataclass(slots=True)
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def value(self) -> Duration:
        return Duration(self.count, round(self.seconds * _NANOSECONDS))


@dataclass
class _Sums:
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    compute_input: _Sum = field(default_factory=_Sum)
    compute_infer: _Sum = field(default_factory=_Sum)
    compute_output: _Sum = field(default_factory=_Sum)
    batches: dict[int, _Sum] = field(default_factory=dict)
    inferences: int = 0
    last_seconds: float = 0.0


class ModelStatistics:
    """Fed by the event loop, which knows the calls, and by engine threads.

    wall_clock: seconds since 1970.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._sums = _Sums()

    def succeeded(
        self,
        seconds: float,
        inferences: int,
        input_seconds: float = 0.0,
        output_seconds: float = 0.0,
    ) -> None:
        """A call ended well. inferences: the inputs it held."""
        with self._lock:
            sums = self._sums
            sums.success.add(seconds)
            sums.compute_input.add(input_seconds)
            sums.compute_output.add(output_seconds)
            sums.inferences += inferences
            sums.last_seconds = self._wall_clock()

    def failed(self, seconds: float) -> None:
        """A call ended otherwise, or was given up by its caller."""
        with self._lock:
            self._sums.fail.add(seconds)

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        """An engine has answered a request."""
        with self._lock:
            self._sums.queue.add(queue_seconds)
            self._sums.compute_infer.add(compute_seconds)

    def executed(self, runs: Iterable[tuple[int, float]]) -> None:
        """Batches or steps ran: the rows and the seconds of each."""
        with self._lock:
            batches = self._sums.batches
            for rows, seconds in runs:
                if rows not in batches:
                    batches[rows] = _Sum()
                batches[rows].add(seconds)
            self._sums.last_seconds = self._wall_clock()

    def snapshot(self) -> StatisticsSnapshot:
        with self._lock:
            sums = self._sums
            return StatisticsSnapshot(
                success=sums.success.value(),
                fail=sums.fail.value(),
                queue=sums.queue.value(),
                compute_input=sums.compute_input.value(),
                compute_infer=sums.compute_infer.value(),
                compute_output=sums.compute_output.value(),
                inference_count=sums.inferences,
                execution_count=sum(ran.count for ran in sums.batches.values()),
                batches={rows: ran.value() for rows, ran in sorted(sums.batches.items())},
                last_inference_ms=round(sums.last_seconds * _MILLISECONDS),
            )
