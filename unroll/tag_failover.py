"""One stream of tags over several calls: as failover.py, for tokens that the caller sends.

A stream whose call broke resumes from its last resume token, or from the start, with what was
sent after it; answers that the caller has are left out. With words it is known which were
answered. How many tokens a text has only servers know: from a text on, the stream goes back to
where it was before that text, unless a server hands it over.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

from unroll.channel import Retries
from unroll.failover import NO_LAST_MESSAGE, REFUSALS, RESUME_EVERY, is_broken
from unroll.replay_buffer import Parts
from unroll.tag_streams import TagChunk, TagStreamEnd, TagStreamOptions, to_start
from unroll.types import RequestFailed, ResumePoint, TaggedToken, to_resume_point, to_tagged_token
from unroll.v1 import unroll_pb2 as pb


@dataclass(eq=False)
class TagAttempt:
    """One call. first, skip: the part that it begins with, and the number of its words left out.

    wait_seconds, failures, brought, has_answered: as of failover.Attempt.
    """

    start: pb.StreamTagStart
    first: int = 0
    skip: int = 0
    wait_seconds: float = 0.0
    failures: int = 0
    brought: bool = False
    has_answered: bool = False


class ResumableTagStream:
    """The calls of one stream of tags. attempt: the one under way or to be made.

    parts: what the caller sends. draw: uniform in 0 … 1.

    Raises ValueError for a number its field cannot hold.
    """

    def __init__(
        self,
        model: str,
        options: TagStreamOptions,
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
        self._allows_inexact = options.get("allow_inexact", False)
        if retries.attempts > 1:
            self._options.setdefault("resume_every", RESUME_EVERY)
        self._first: int | None = None if options.get("resume_token") else 0
        self._next_position = self._first or 0
        self._labels: list[str] = []  # delivered, from the parts' position on
        self._shown = -1
        self._last: ResumePoint | None = None
        self._unknown_symbols = 0
        self._usage: pb.Usage | None = None  # the first reported
        self._is_accepted = False
        self.is_over = False
        self._first_attempt = self.attempt = TagAttempt(to_start(model, self._options))

    # -- what comes ----------------------------------------------------------------------------

    def take(self, response: pb.StreamTagResponse) -> TagChunk | None:
        """What is new in a message of the attempt; None for nothing.

        Raises RequestFailed once there is nothing left to try.
        """
        self._is_accepted = True
        attempt = self.attempt
        tokens = self._take_tokens(response)
        if tokens is None:
            self.fail(self._unlike())
            return None
        attempt.brought |= bool(tokens)
        points = self._take_points(response)
        end = None
        if response.handed_over:
            self._take_usage(response.usage)
            attempt.has_answered = True
            self._resume_after(response)
        elif response.HasField("usage"):
            self._take_usage(response.usage)
            attempt.has_answered = self.is_over = True
            end = self._end(response.usage)
            if self._asks_at_end and not self._wants_points and self._last:
                points.append(self._last)
        return TagChunk(tokens, points, end) if tokens or points or end else None

    def _take_tokens(self, response: pb.StreamTagResponse) -> list[TaggedToken] | None:
        """The new ones; None where the others are not what was delivered before."""
        fresh = []
        for token in response.tokens:
            if self._first is None:
                self._first = self._next_position = self._parts.position = token.position
            if token.position > self._next_position:
                return None  # one was lost on the way
            if token.position < self._next_position:
                place = token.position - self._parts.position
                is_same = place >= len(self._labels) or self._labels[place] == token.label
                if not (is_same or self._allows_inexact):
                    return None
                continue
            self._next_position += 1
            if self._parts.is_whole:
                self._labels.append(sys.intern(token.label))
            fresh.append(to_tagged_token(token))
        return fresh

    def _unlike(self) -> RequestFailed:
        return RequestFailed(
            "FAILED_PRECONDITION",
            f"model {self._model!r} gives other labels here than where the stream began; serve one "
            "bundle on servers of one kind, or set allow_inexact to resume all the same",
        )

    def _take_points(self, response: pb.StreamTagResponse) -> list[ResumePoint]:
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

    def _reach(self, point: ResumePoint) -> bool:
        before = self._parts.position
        if self._first is None or not self._parts.reach(point.next_position):
            return False
        self._from(point, before)
        return True

    def _from(self, point: ResumePoint, before: int) -> None:
        del self._labels[: point.next_position - before]
        self._options["resume_token"] = point.token

    def _take_usage(self, usage: pb.Usage) -> None:
        self._usage = self._usage or usage
        self._unknown_symbols += usage.unknown_symbols

    def _end(self, usage: pb.Usage) -> TagStreamEnd:
        first = self._usage or usage
        return TagStreamEnd(
            self._next_position - (self._first or 0),
            self._unknown_symbols,
            first.queue_seconds,
            first.time_to_first_token_seconds,
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

    def _resume_after(self, response: pb.StreamTagResponse) -> None:
        """The server stops, and says so: another one is called at once."""
        attempt, before = self.attempt, self._parts.position
        if self._last and response.resume_points and not self._reach(self._last):
            self._parts.jump(attempt.first + response.requests_read, self._last.next_position)
            self._from(self._last, before)
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
        start = to_start(self._model, self._options)
        self.attempt = TagAttempt(start, self._parts.first, self._parts.skip, wait, failures)
