"""One stream of frames over several calls.

Each frame is a part, and each is answered once, so that it is known which are to be sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from unroll.channel import Retries
from unroll.push_failover import ResumablePushes
from unroll.replay_buffer import Parts
from unroll.step_streams import (
    StepChunk,
    StepOptions,
    StepResult,
    StepStreamEnd,
    to_result,
    to_step_start,
)
from unroll.types import RequestFailed
from unroll.v1 import unroll_pb2 as pb


class ResumableStepStream(ResumablePushes):
    """As ResumablePushes, of frames."""

    def __init__(
        self,
        model: str,
        options: StepOptions,
        retries: Retries,
        parts: Parts,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(to_step_start, model, options, retries, parts, draw)
        self._ended: list[pb.StepUsage] = []  # of the calls that said how they ended
        self._counts = {"steps": 0, "late": 0, "skipped": 0}

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
            self._resume_after()
        elif response.HasField("usage"):
            self.is_over = True
            end = self._end()
            points += self._points_at_end()
        return StepChunk(results, points, end) if results or points or end else None

    def _take_results(self, response: pb.StreamStepResponse) -> list[StepResult] | None:
        """The new ones; None where one was lost on the way."""
        fresh = []
        for result in response.results:
            if self._first is None:
                self._begin_at(result.position)
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

    def _leaves_unanswered(self) -> bool:
        """Where all answers came, a status that is lost changes nothing. Otherwise it says which
        frame was refused."""
        return self._first is None or not self._parts.are_answered(self._next_position)

    def _resume_after(self) -> None:
        """As _go_elsewhere(), from where the server says that it has come."""
        if self._last:
            if self._first is None:
                # It stopped before it had answered anything of the stream that is resumed.
                self._begin_at(self._last.next_position)
            self._reach(self._last)
        self._go_elsewhere()
