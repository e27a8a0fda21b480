"""One stream of tags over several calls.

With words it is known which were answered. How many tokens a text has only servers know: from a
text on, the stream goes back to where it was before that text, unless a server hands it over.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from unroll.channel import Retries
from unroll.push_failover import ResumablePushes
from unroll.replay_buffer import Parts
from unroll.tag_streams import TagChunk, TagStreamEnd, TagStreamOptions, to_start
from unroll.types import RequestFailed, ResumePoint, TaggedToken, to_tagged_token
from unroll.v1 import unroll_pb2 as pb


class ResumableTagStream(ResumablePushes):
    """As ResumablePushes, of tags."""

    def __init__(
        self,
        model: str,
        options: TagStreamOptions,
        retries: Retries,
        parts: Parts,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(to_start, model, options, retries, parts, draw)
        self._allows_inexact = options.get("allow_inexact", False)
        self._labels: list[str] = []  # delivered, from the parts' position on
        self._unknown_symbols = 0
        self._usage: pb.Usage | None = None  # the first reported

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
            self._resume_after(response)
        elif response.HasField("usage"):
            self._take_usage(response.usage)
            self.is_over = True
            end = self._end(response.usage)
            points += self._points_at_end()
        return TagChunk(tokens, points, end) if tokens or points or end else None

    def _take_tokens(self, response: pb.StreamTagResponse) -> list[TaggedToken] | None:
        """The new ones; None where the others are not what was delivered before."""
        fresh = []
        for token in response.tokens:
            if self._first is None:
                self._begin_at(token.position)
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

    def _from(self, point: ResumePoint, before: int) -> None:
        del self._labels[: point.next_position - before]
        super()._from(point, before)

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

    def _resume_after(self, response: pb.StreamTagResponse) -> None:
        """As _go_elsewhere(), from where the server says that it has come."""
        before = self._parts.position
        if self._last and response.resume_points and not self._reach(self._last):
            self._parts.jump(self.attempt.first + response.requests_read, self._last.next_position)
            self._from(self._last, before)
        self._go_elsewhere()
