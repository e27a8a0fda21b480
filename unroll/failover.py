"""One stream of tokens over several calls, since servers stop and connections break.

It is fed with the messages and the failures of calls, says which calls are to be made next, and
passes on what the caller does not have yet. It knows no channel and no clock.

A stream whose call broke resumes by the last resume token of each sample that has not ended, and
without one by the whole request, with the same seed: the same tokens come again, and those that
the caller has are left out. They are compared with what was delivered, so that two streams are
never joined.
"""

from __future__ import annotations

import random
import secrets
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unroll import types
from unroll.channel import Retries
from unroll.sampling import Sampling
from unroll.types import (
    Answer,
    Chunk,
    GenerateOptions,
    RequestFailed,
    ResumePoint,
    SampleEnd,
    Token,
)
from unroll.v1 import unroll_pb2 as pb

# Tokens between two resume tokens of a stream that may be longer, where its caller does not say:
# when a server breaks, at most so many tokens of it are made a second time. A resume token holds
# the state of the model, some kilobytes, so a shorter interval would cost more than it saves; a
# shorter stream costs nothing, and is made anew.
RESUME_EVERY = 256
_SEEDS = 2**64
# Another server may take what this one refused: a token that is good elsewhere, a model that is
# being replaced. Not the first call's, which is about the request.
REFUSALS = ("NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
# What gRPC says in other codes: of a connection, of the server behind a proxy, and, while it sends,
# of any end at all (grpc#36066).
_WHILE_SENDING = "Internal error from Core"
_BROKEN = ("RST_STREAM", "Stream removed", "GOAWAY", _WHILE_SENDING)
_CLOSED = "Channel closed"  # by our own caller
# Options of the request that a resumed stream repeats; all others are in its token.
_RESUME_OPTIONS = (
    "allow_inexact", "top_log_probabilities", "tokens_per_message", "resume_every",
    "resume_at_end", "version", "watch", "no_cache",
)  # fmt: skip

NO_LAST_MESSAGE = RequestFailed("UNAVAILABLE", "the stream ended without its last message")
REASON_LOST = "the server ended the stream while more was sent to it; gRPC did not keep its reason"


def has_lost_its_reason(failure: RequestFailed) -> bool:
    """Whether gRPC put an error of its own in the place of the server's status."""
    return failure.code == "INTERNAL" and _WHILE_SENDING in failure.message


def is_broken(failure: RequestFailed) -> bool:
    """Whether the server or the way to it ended, whatever the request was."""
    if failure.code == "UNAVAILABLE":
        return True
    if failure.code == "CANCELLED":
        # Not by us: a server cancels what it has no time to end.
        return _CLOSED not in failure.message
    return failure.code in ("INTERNAL", "UNKNOWN") and any(s in failure.message for s in _BROKEN)


@dataclass(eq=False)
class Attempt:
    """One call. sample: the one that it resumes; None for the request as a whole.

    wait_seconds: before it is made. failures: calls in a row before this one that brought nothing
    new. before: log-probability of the sample's tokens that earlier attempts made. brought:
    whether it has brought anything new. has_answered: whether its last message has come. call:
    the driver's own.
    """

    request: pb.GenerateRequest
    wait_seconds: float = 0.0
    sample: int | None = None
    failures: int = 0
    before: float = 0.0
    brought: bool = False
    has_answered: bool = False
    call: Any = None


@dataclass(eq=False)
class _Sample:
    """What was delivered of one sample, from position ``first`` on.

    point: where it could resume. pending: another one, usable once a token after it has come: one
    that was made at the end is not. shown: next_position of the last point that the caller got.
    last: the last one that came.
    """

    first: int
    ids: array[int] = field(default_factory=lambda: array("I"))
    log_probabilities: array[float] = field(default_factory=lambda: array("f"))
    point: ResumePoint | None = None
    pending: ResumePoint | None = None
    last: ResumePoint | None = None
    shown: int = -1
    has_ended: bool = False

    @property
    def next_position(self) -> int:
        return self.first + len(self.ids)

    def usable_point(self) -> ResumePoint | None:
        if self.pending and self.next_position > self.pending.next_position:
            self.point, self.pending = self.pending, None
        return self.point

    def log_probability_until(self, position: int) -> float:
        return sum(self.log_probabilities[: position - self.first])


class ResumableStream:
    """The calls of one request. open_attempts: those that are under way or to be made.

    options: normalised. draw: uniform in 0 … 1. choose_seed: for requests without one, so that it
    is known before a server reports it.

    Raises ValueError for a number its field cannot hold.
    """

    def __init__(
        self,
        model: str,
        options: GenerateOptions,
        retries: Retries,
        draw: Callable[[], float] = random.random,
        choose_seed: Callable[[], int] = lambda: secrets.randbelow(_SEEDS),
    ) -> None:
        self._model = model
        self._retries = retries
        self._draw = draw
        self._wants_log_probabilities = options.get("log_probabilities", False)
        self._wants_points = bool(options.get("resume_every"))
        self._asks_at_end = options.get("resume_at_end", False)
        self._allows_inexact = options.get("allow_inexact", False)
        self._is_whole = bool(options.get("beam"))  # answered as a whole, and sent again as one
        self._is_resumed = options.get("resume_token") is not None
        self._numbers = range(options.get("samples") or 1)
        self._options = self._completed(options, choose_seed)
        self._samples: dict[int, _Sample] = {}
        self._usage: pb.Usage | None = None  # the first reported
        self._is_accepted = False
        self._has_seed = self._has_echo = False
        self._first = Attempt(types.generate_request(model, self._options))
        self.open_attempts = [self._first]

    def _completed(
        self, options: GenerateOptions, choose_seed: Callable[[], int]
    ) -> GenerateOptions:
        """With what resuming takes: a seed, resume tokens, log-probabilities."""
        completed = options.copy()
        if self._is_whole:
            return completed
        # An end has the sum, which a server knows only of the tokens that it made itself.
        completed["log_probabilities"] = True
        sampling = options.get("sampling") or Sampling()
        if not self._is_resumed and sampling.seed is None:
            completed["sampling"] = sampling.replace(seed=choose_seed())
        longest = options.get("max_tokens")
        if (longest is None or longest > RESUME_EVERY) and self._retries.attempts > 1:
            completed.setdefault("resume_every", RESUME_EVERY)
        return completed

    # -- what comes ----------------------------------------------------------------------------

    def take(self, attempt: Attempt, response: pb.GenerateResponse) -> Chunk | None:
        """What is new in a message of ``attempt``; None for nothing.

        Raises RequestFailed once there is nothing left to try.
        """
        self._is_accepted = True
        tokens, agrees = self._take_tokens(attempt, response)
        if not agrees:
            self.fail(attempt, self._unlike())
            return Chunk(tokens, None, None) if tokens else None
        points = self._take_points(response)
        ends = self._take_ends(attempt, response, points)
        chunk = Chunk(
            tokens,
            self._take_seed(response),
            self._take_answer(attempt, response) if response.finish_reason else None,
            self._take_echo(response),
            ends,
            points,
        )
        is_empty = not (tokens or points or ends or chunk.echo or chunk.answer)
        return None if is_empty and chunk.seed is None else chunk

    def _take_tokens(
        self, attempt: Attempt, response: pb.GenerateResponse
    ) -> tuple[list[Token], bool]:
        """The new ones, and whether all others are what was delivered before."""
        fresh: list[Token] = []
        for token in response.tokens:
            number, position = token.sample, token.position
            sample = self._samples.get(number)
            if sample is None:
                sample = self._samples[number] = _Sample(position if self._is_resumed else 0)
            place = position - sample.first
            if place == len(sample.ids):
                sample.ids.append(token.id)
                sample.log_probabilities.append(token.log_probability)
                fresh.append(types.to_token(token, self._wants_log_probabilities))
            elif not (0 <= place < len(sample.ids)):
                return fresh, False  # one was lost on the way
            elif sample.ids[place] != token.id and not self._allows_inexact:
                return fresh, False
        attempt.brought |= bool(fresh)
        return fresh, True

    def _unlike(self) -> RequestFailed:
        return RequestFailed(
            "FAILED_PRECONDITION",
            f"model {self._model!r} makes other tokens here than where the stream began; serve one "
            "bundle on servers of one kind, or set allow_inexact to resume all the same",
        )

    def _take_points(self, response: pb.GenerateResponse) -> list[ResumePoint]:
        """Notes where samples could resume; returns the new points if the caller wants them."""
        fresh = []
        for message in response.resume_points:
            point = types.to_resume_point(message)
            sample = self._samples.setdefault(point.sample, _Sample(point.next_position))
            sample.last = point
            if self._asks_at_end and response.finish_reason != pb.FINISH_REASON_HANDED_OVER:
                sample.usable_point()
                sample.pending = point
            else:
                sample.point, sample.pending = point, None
            if self._wants_points and point.next_position > sample.shown:
                sample.shown = point.next_position
                fresh.append(point)
        return fresh

    def _take_ends(
        self, attempt: Attempt, response: pb.GenerateResponse, points: list[ResumePoint]
    ) -> list[SampleEnd]:
        """Of samples that had not ended, as if one server had made all of their tokens.

        points: their last ones are added where the caller wants those and no others.
        """
        fresh = []
        for message in response.ends:
            end = types.to_end(message)
            sample = self._samples.setdefault(end.sample, _Sample(0))
            if sample.has_ended:
                continue
            sample.has_ended = attempt.brought = True
            whole = attempt.before + end.log_probability
            fresh.append(replace(end, output_tokens=len(sample.ids), log_probability=whole))
            at_end = self._asks_at_end and not self._wants_points and end.reason != "end"
            if at_end and sample.last:
                points.append(sample.last)
        return fresh

    def _take_seed(self, response: pb.GenerateResponse) -> int | None:
        if self._has_seed or not response.HasField("seed"):
            return None
        self._has_seed = True
        return response.seed

    def _take_echo(self, response: pb.GenerateResponse) -> list[Token]:
        if self._has_echo or not response.echo:
            return []
        self._has_echo = True
        return [types.to_token(token, self._wants_log_probabilities) for token in response.echo]

    def _take_answer(self, attempt: Attempt, response: pb.GenerateResponse) -> Answer | None:
        """How the whole stream ended, once no other attempt is under way."""
        attempt.has_answered = True
        usage = self._usage = self._usage or response.usage
        if response.finish_reason == pb.FINISH_REASON_HANDED_OVER:
            self._resume_after(attempt)
            return None
        if any(not other.has_answered for other in self.open_attempts):
            return None
        return Answer(
            types.to_reason(response.finish_reason),
            response.usage.input_tokens,
            sum(len(sample.ids) for sample in self._samples.values()),
            usage.unknown_symbols,
            usage.queue_seconds,
            usage.time_to_first_token_seconds,
            usage.cached_tokens,
        )

    def end(self, attempt: Attempt) -> None:
        """The call of ``attempt`` ended with status OK. Raises as fail()."""
        self.fail(attempt, NO_LAST_MESSAGE)

    def fail(self, attempt: Attempt, failure: RequestFailed) -> None:
        """The call of ``attempt`` ended with ``failure``, which is raised if it is final."""
        self.open_attempts.remove(attempt)
        if attempt.has_answered:
            return
        failures = 1 if attempt.brought else attempt.failures + 1
        is_another = self._is_accepted and attempt is not self._first
        is_refused = is_another and failure.code in REFUSALS
        may_resume = (
            is_refused or is_broken(failure) or self._retries.waits_for(failure.retry_after_seconds)
        )
        if not may_resume or failures >= self._retries.attempts:
            raise failure
        wait = max(self._retries.wait(failures, self._draw), failure.retry_after_seconds or 0.0)
        # The token is tried again where the whole request is refused in turn.
        is_token_bad = is_refused and attempt.sample is not None and not failure.retry_after_seconds
        self._resume(attempt, failures, wait, by_token=not is_token_bad)

    # -- what is next --------------------------------------------------------------------------

    def _resume_after(self, attempt: Attempt) -> None:
        """The server of ``attempt`` stops, and says so: another one is called at once."""
        failures = 0 if attempt.brought else attempt.failures + 1
        if failures >= max(self._retries.attempts, 2):
            raise RequestFailed("UNAVAILABLE", f"{failures} servers in a row stopped")
        self._resume(attempt, failures, 0.0)

    def _resume(self, attempt: Attempt, failures: int, wait: float, by_token: bool = True) -> None:
        wanted = [attempt.sample] if attempt.sample is not None else self._unfinished()
        points = [self._samples[n].usable_point() if by_token else None for n in wanted]
        for point in points:
            if point is not None:
                self.open_attempts.append(self._attempt_from(point, failures, wait))
        under_way = [other for other in self.open_attempts if not other.has_answered]
        is_whole_needed = None in points or not under_way
        if is_whole_needed and all(other.sample is not None for other in under_way):
            self.open_attempts.append(Attempt(self._request_again(), wait, failures=failures))

    def _unfinished(self) -> list[int]:
        """Samples that no attempt under way goes on with."""
        covered = {attempt.sample for attempt in self.open_attempts if not attempt.has_answered}
        every = self._samples if self._is_whole or self._is_resumed else self._numbers
        return [
            number
            for number in every
            if number not in covered and not self._samples.setdefault(number, _Sample(0)).has_ended
        ]

    def _attempt_from(self, point: ResumePoint, failures: int, wait: float) -> Attempt:
        every: dict[str, Any] = dict(self._options)
        options: Any = {name: every[name] for name in _RESUME_OPTIONS if name in every}
        options |= {"resume_token": point.token, "log_probabilities": True}
        request = types.generate_request(self._model, options)
        before = self._samples[point.sample].log_probability_until(point.next_position)
        return Attempt(request, wait, point.sample, failures, before)

    def _request_again(self) -> pb.GenerateRequest:
        options = self._options.copy()
        if self._has_echo:
            options["echo"] = False
        return types.generate_request(self._model, options)
