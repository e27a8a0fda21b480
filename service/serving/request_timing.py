"""Timestamps and durations of one request, for the event loop alone."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from service.engine.dynamic_batcher import Job
from service.engine.requests import Finished, FinishReason
from service.engine.step_engine import RequestState


@dataclass(slots=True)
class Timeline:
    """Moments on the engines' clock, in seconds; None for what did not happen.

    queued: it was handed to an engine. started: the engine began to read or run it. prefilled: its
    prompt or source was read. first_token: was made. finished: the engine was done with it.
    A request that is several pieces of work has the first of each, and the last end.
    input_tokens: of what the engines finished; None where nothing was. reason, output_tokens: of
    what was to make or answer tokens, not only to be read.
    """

    queued: float | None = None
    started: float | None = None
    prefilled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    reason: FinishReason | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def note_stream(self, progress: RequestState[Any, Any], ended: Finished | None) -> None:
        """A stream is closed. Its engine has written each moment of ``progress`` once, if at all.

        ended: its last event; None where its caller left or its engine gave it up.
        """
        self._note(progress.arrived, progress.started, progress.finished)
        self.prefilled = _first(self.prefilled, progress.prefilled)
        self.first_token = _first(self.first_token, progress.first_token)
        if ended:
            self.input_tokens = (self.input_tokens or 0) + ended.input_tokens
        if ended and ended.reason is not FinishReason.READ:
            self.reason = ended.reason
            self.output_tokens = (self.output_tokens or 0) + ended.output_tokens

    def note_batch(self, job: Job) -> None:
        """Whole texts were answered, or given up."""
        waited = job.queue_seconds
        self._note(job.arrived, None if waited is None else job.arrived + waited, job.finished)
        tokens = sum(item.length for item in job.items)
        self.input_tokens = (self.input_tokens or 0) + tokens

    def _note(self, queued: float, started: float | None, finished: float | None) -> None:
        self.queued = _first(self.queued, queued)
        self.started = _first(self.started, started)
        if finished is not None:
            self.finished = max(finished, self.finished or finished)


class EngineTimes:
    """How long a request waited for engines, and how long they worked on it, in seconds.

    Pieces of work that follow each other add up. Of those side by side, such as the rows of one
    step, the longest counts: they share batches.
    """

    __slots__ = ("_before", "_until", "compute_seconds", "queue_seconds")

    def __init__(self) -> None:
        self.queue_seconds = self.compute_seconds = 0.0
        self._before = (0.0, 0.0)  # of what ended before those that are side by side now came
        self._until = -math.inf

    def add_stream(self, progress: RequestState[Any, Any]) -> None:
        """Its engine has put its last event."""
        finished = progress.arrived if progress.finished is None else progress.finished
        self._add(progress.arrived, progress.queue_seconds, progress.compute_seconds, finished)

    def add_batch(self, job: Job) -> None:
        """Its engine has put its results."""
        finished = job.arrived if job.finished is None else job.finished
        self._add(job.arrived, job.queue_seconds or 0.0, job.compute_seconds, finished)

    def _add(self, arrived: float, queued: float, computed: float, finished: float) -> None:
        if arrived >= self._until:
            self._before = (self.queue_seconds, self.compute_seconds)
        queued_before, computed_before = self._before
        self.queue_seconds = max(self.queue_seconds, queued_before + queued)
        self.compute_seconds = max(self.compute_seconds, computed_before + computed)
        self._until = max(self._until, finished)


# Of the request that is being served; None where nobody watches.
TIMELINE: ContextVar[Timeline | None] = ContextVar("timeline", default=None)
# Of the call that is being served; None outside of calls.
ENGINE_TIMES: ContextVar[EngineTimes | None] = ContextVar("engine_times", default=None)


def _first(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
