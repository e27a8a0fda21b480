"""One stream into which its caller sends, over several calls: as failover.py, for what is pushed.

A stream whose call broke resumes from its last resume token, or from the start, with what was
sent after it; answers that the caller has are left out. tag_failover.py and step_failover.py know
what the answers are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unroll.channel import Retries
from unroll.failover import NO_LAST_MESSAGE, REFUSALS, RESUME_EVERY, is_broken
from unroll.replay_buffer import Parts
from unroll.types import RequestFailed, ResumePoint, to_resume_point


@dataclass(eq=False)
class PushAttempt:
    """One call. first, skip: the part that it begins with, and the number of its words left out.

    wait_seconds, failures, brought: as of failover.Attempt.
    """

    start: Any
    first: int = 0
    skip: int = 0
    wait_seconds: float = 0.0
    failures: int = 0
    brought: bool = False


class ResumablePushes:
    """The calls of one stream. attempt: the one under way or to be made.

    to_start: the first message of a call, of the model and the options. parts: what the caller
    sends. draw: uniform in 0 … 1.

    Raises ValueError for a number its field cannot hold.
    """

    def __init__(
        self,
        to_start: Callable[[str, Any], Any],
        model: str,
        options: Mapping[str, Any],
        retries: Retries,
        parts: Parts,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._to_start = to_start
        self._model = model
        self._options = dict(options)
        self._retries = retries
        self._parts = parts
        self._draw = draw
        self._wants_points = bool(options.get("resume_every"))
        self._asks_at_end = options.get("resume_at_end", False)
        if retries.attempts > 1:
            self._options.setdefault("resume_every", RESUME_EVERY)
        # Where a stream that is resumed was, its first answer says.
        self._first: int | None = None if options.get("resume_token") else 0
        self._next_position = self._first or 0
        self._shown = -1
        self._last: ResumePoint | None = None
        self._is_accepted = False
        self.is_over = False
        self._first_attempt = self.attempt = PushAttempt(to_start(model, self._options))

    # -- what comes ----------------------------------------------------------------------------

    def _begin_at(self, position: int) -> None:
        self._first = self._next_position = self._parts.position = position

    def _take_points(self, response: Any) -> list[ResumePoint]:
        """Notes where to resume; returns the new points if the caller wants them."""
        fresh = []
        for message in response.resume_points:
            point = self._last = to_resume_point(message)
            if not response.handed_over:
                self._reach(point)
            if self._wants_points and point.next_position > self._shown:
                self._shown = point.next_position
                fresh.append(point)
        return fresh

    def _points_at_end(self) -> list[ResumePoint]:
        """The last one, where the caller asked for that one alone."""
        if self._asks_at_end and not self._wants_points and self._last:
            return [self._last]
        return []

    def _reach(self, point: ResumePoint) -> bool:
        """Resume there from now on, if the parts say what comes next."""
        before = self._parts.position
        if self._first is None or not self._parts.reach(point.next_position):
            return False
        self._from(point, before)
        return True

    def _from(self, point: ResumePoint, before: int) -> None:
        """before: where the stream would have resumed."""
        self._options["resume_token"] = point.token
        self._options.pop("set_state", None)  # the point is one after it

    # -- what is next --------------------------------------------------------------------------

    def end(self) -> None:
        """The call of the attempt ended with status OK. Raises as fail()."""
        if not self.is_over:
            self.fail(NO_LAST_MESSAGE)

    def fail(self, failure: RequestFailed) -> None:
        """The call of the attempt ended with ``failure``, which is raised if it is final."""
        attempt = self.attempt
        if self.is_over:
            if self._leaves_unanswered():
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

    def _leaves_unanswered(self) -> bool:
        """Whether its last message came, and a status after it still says what went wrong."""
        return False

    def _go_elsewhere(self) -> None:
        """The server stops, and says so: another one is called at once."""
        attempt = self.attempt
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
        start = self._to_start(self._model, self._options)
        parts = self._parts
        self.attempt = PushAttempt(start, parts.first, parts.skip, wait, failures)
