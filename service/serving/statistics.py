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


@dataclass(slots=True)
class CallTimes:
    """Where the time of one call went, in seconds.

    queue: its work waited for engines. compute_input, compute_output: its transport converted.
    compute_infer: engines worked on it.
    """

    queue: float = 0.0
    compute_input: float = 0.0
    compute_infer: float = 0.0
    compute_output: float = 0.0

    def add(self, other: CallTimes) -> None:
        self.queue += other.queue
        self.compute_input += other.compute_input
        self.compute_infer += other.compute_infer
        self.compute_output += other.compute_output


_NO_TIMES = CallTimes()


@dataclass(frozen=True)
class StatisticsSnapshot:
    """What was counted up to one moment.

    success, fail: calls, from their arrival to their end; one that its caller gave up has failed.
    queue, compute_input, compute_infer, compute_output: what CallTimes has, of the successful
    calls: the counts are always those of success, as in Triton's statistics.
    inference_count: their inputs. execution_count: batches and decode steps that ran, for
    whatever call. batches: those by their rows. last_inference_ms: when something last ran or
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


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count, round(seconds * _NANOSECONDS))


@dataclass(slots=True)
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def value(self) -> Duration:
        return _duration(self.count, self.seconds)


@dataclass
class _Sums:
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    times: CallTimes = field(default_factory=CallTimes)
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

    def succeeded(self, seconds: float, inferences: int, times: CallTimes = _NO_TIMES) -> None:
        """A call ended well: all of it is counted at once. inferences: the inputs it held."""
        with self._lock:
            sums = self._sums
            sums.success.add(seconds)
            sums.times.add(times)
            sums.inferences += inferences
            sums.last_seconds = self._wall_clock()

    def failed(self, seconds: float) -> None:
        """A call ended otherwise, or was given up by its caller."""
        with self._lock:
            self._sums.fail.add(seconds)

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
            sums, times = self._sums, self._sums.times
            calls = sums.success.count
            return StatisticsSnapshot(
                success=sums.success.value(),
                fail=sums.fail.value(),
                queue=_duration(calls, times.queue),
                compute_input=_duration(calls, times.compute_input),
                compute_infer=_duration(calls, times.compute_infer),
                compute_output=_duration(calls, times.compute_output),
                inference_count=sums.inferences,
                execution_count=sum(ran.count for ran in sums.batches.values()),
                batches={rows: ran.value() for rows, ran in sorted(sums.batches.items())},
                last_inference_ms=round(sums.last_seconds * _MILLISECONDS),
            )
