"""One stream of frames over several calls: as tag_failover.py, for frames that the caller sends.

Each frame is a part, and each is answered once, so that it is known which are to be sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from unroll.channel import Retries
from unroll.failover import NO_LAST_MESSAGE, REFUSALS, RESUME_EVERY, is_broken
from unroll.replay_buffer import Parts
from unroll.step_streams import (
    StepChunk,
    StepOptions,
    StepResult,
    StepStreamEnd,
    to_result,
    to_step_start,
)
from unroll.types import RequestFailed, ResumePoint, to_resume_point
from unroll.v1 import unroll_pb2 as pb


@dataclass(eq=False)
class StepAttempt:
    """One call. first: the frame that it begins with; skip: no part of it is left out.

    wait_seconds, failures, brought: as of failover.Attempt.
    """

    start: pb.StreamStepStart
    first: int = 0
    skip: int = 0
    wait_seconds: float = 0.0
    failures: int = 0
    brought: bool = False


class ResumableStepStream:
    """The calls of one stream of frames. attempt: the one under way or to be made.

    parts: what the caller sends. draw: uniform in 0 … 1.

    Raises ValueError for a number its field cannot hold.
    """

    def __init__(
        self,
        model: str,
        options: StepOptions,
        retries: Retries,
        parts: Parts,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._model = model
        self._options = options.copy()
        self._retries = retries
        self._parts = parts
        self._draw = draw
        self._wants_points = bool(options.get("resume_every"))
        self._asks_at_end = options.get("resume_at_end", False)
        if retries.attempts > 1:
            self._options.setdefault("resume_every", RESUME_EVERY)
        # Where the stream that is resumed was, its first answer says.
        self._first: int | None = None if options.get("resume_token") else 0
        self._next_position = self._first or 0
        self._shown = -1
        self._last: ResumePoint | None = None
        self._ended: list[pb.StepUsage] = []  # of the calls that said how they ended
        self._counts = {"steps": 0, "late": 0, "skipped": 0}
        self._is_accepted = False
        self.is_over = False
        self._first_attempt = self.attempt = StepAttempt(to_step_start(model, self._options))

    # -- what comes ----------------------------------------------------------------------------

    def take(self, response: pb.StreamStepResponse) -> StepChunk | None:
        """What is new in a message of the attempt; None for nothing.

        Raises RequestFailed once there is nothing left to try.
        """
        self._is_accepted = True
        attempt = self.attempt
        results = self._take_results(response)
        if results is None:
            self.fail(RequestFailed("INTERNAL", "an answer is missing among those that came"))
            return None
        attempt.brought |= bool(results)
        points = self._take_points(response)
        end = None
        if response.HasField("usage"):
            self._ended.append(response.usage)
        if response.handed_over:
            self._resume_after(response)
        elif response.HasField("usage"):
            self.is_over = True
            end = self._end()
            if self._asks_at_end and not self._wants_points and self._last:
                points.append(self._last)
        return StepChunk(results, points, end) if results or points or end else None

    def _take_results(self, response: pb.StreamStepResponse) -> list[StepResult] | None:
        """The new ones; None where one was lost on the way."""
        fresh = []
        for result in response.results:
            if self._first is None:
                self._first = self._next_position = self._parts.position = result.position
            if result.position > self._next_position:
                return None
            if result.position < self._next_position:
                continue
            self._next_position += 1
            self._counts["steps"] += 0 if result.skipped else result.steps
            self._counts["late"] += result.late
            self._counts["skipped"] += result.skipped
            fresh.append(to_result(result))
        return fresh

    def _take_points(self, response: pb.StreamStepResponse) -> list[ResumePoint]:
        """Notes where to resume; returns the new points if the caller wants them."""
        fresh = []
        for message in response.resume_points:
            point = self._last = to_resume_point(message)
            if self._first is not None and self._parts.reach(point.next_position):
                self._options["resume_token"] = point.token
            if self._wants_points and point.next_position > self._shown:
                self._shown = point.next_position
                fresh.append(point)
        return fresh

    def _end(self) -> StepStreamEnd:
        first = self._ended[0]
        return StepStreamEnd(
            self._next_position - (self._first or 0),
            self._counts["steps"],
            self._counts["late"],
            self._counts["skipped"],
            first.queue_seconds,
            first.time_to_first_answer_seconds,
        )

    # -- what is next --------------------------------------------------------------------------

    def end(self) -> None:
        """The call of the attempt ended with status OK. Raises as fail()."""
        if not self.is_over:
            self.fail(NO_LAST_MESSAGE)

    def fail(self, failure: RequestFailed) -> None:
        """The call of the attempt ended with ``failure``, which is raised if it is final."""
        attempt = self.attempt
        if self.is_over:
            # Its last message came, and so did all answers: a status that is lost then changes
            # nothing. Otherwise it says which frame was refused.
            if self._first is None or not self._parts.are_answered(self._next_position):
                raise failure
            return
        failures = 1 if attempt.brought else attempt.failures + 1
        is_another = self._is_accepted and attempt is not self._first_attempt
        may_resume = (
            is_broken(failure)
            or (is_another and failure.code in REFUSALS)
            or self._retries.waits_for(failure.retry_after_seconds)
        )
        if not (may_resume and self._parts.is_whole) or failures >= self._retries.attempts:
            raise failure
        wait = max(self._retries.wait(failures, self._draw), failure.retry_after_seconds or 0.0)
        self._resume(failures, wait)

    def _resume_after(self, response: pb.StreamStepResponse) -> None:
        """The server stops, and says so: another one is called at once."""
        attempt = self.attempt
        if self._first is None and self._last:
            # It stopped before it had answered anything of the stream that is resumed.
            self._first = self._next_position = self._parts.position = self._last.next_position
            self._options["resume_token"] = self._last.token
        failures = 0 if attempt.brought else attempt.failures + 1
        if not self._parts.is_whole or failures >= max(self._retries.attempts, 2):
            raise RequestFailed(
                "UNAVAILABLE",
                "the server stopped, and what it had not answered is no longer buffered"
                if failures == 0
                else f"{failures} servers in a row stopped",
            )
        self._resume(failures, 0.0)

    def _resume(self, failures: int, wait: float) -> None:
        start = to_step_start(self._model, self._options)
        self.attempt = StepAttempt(start, self._parts.first, 0, wait, failures)
