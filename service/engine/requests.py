"""Requests and events of the engines: values without behaviour."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from numpy.typing import NDArray

from bundle.sampling import NEUTRAL
from bundle.series import EncodedSeries
from service.engine.errors import RequestError
from service.engine.rng import digest_of

# One row's state: the tensors of the step graph by name, without the batch axis.
State = Mapping[str, NDArray[Any]]


class FinishReason(enum.Enum):
    END = "end"  # the model made its end token
    STOP = "stop"  # a stop text came up
    LENGTH = "length"  # max_tokens were made
    CLOSED = "closed"  # the caller pushed its last token, and it was answered
    READ = "read"  # what was to be read was read; nothing was to be made
    HANDED_OVER = "handed_over"  # the engine stops first; it can go on elsewhere
    CANCELLED = "cancelled"  # the caller left; nobody reads this one


@dataclass(frozen=True)
class Sampling:
    """How a stream's tokens are drawn.

    seed: 0 … 2⁶⁴-1. values: every parameter of bundle/sampling.py by name.
    bias: (token, what is added to its logit) pairs; -inf bans it. allowed: the only tokens
    that may be drawn, empty for all.
    """

    seed: int
    values: Mapping[str, float]
    bias: tuple[tuple[int, float], ...] = ()
    allowed: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        seed: int,
        bias: tuple[tuple[int, float], ...] = (),
        allowed: tuple[int, ...] = (),
        **values: float,
    ) -> Sampling:
        """With the parameters that are named; the others are neutral. Raises TypeError for one
        that is not in the table."""
        unknown = values.keys() - NEUTRAL.keys()
        if unknown:
            raise TypeError(f"{min(unknown)!r} is no sampling parameter")
        return cls(seed, {**NEUTRAL, **values}, bias, allowed)

    @property
    def repetition_penalty(self) -> float:
        return self.values["repetition_penalty"]

    @property
    def frequency_penalty(self) -> float:
        return self.values["frequency_penalty"]

    @property
    def presence_penalty(self) -> float:
        return self.values["presence_penalty"]

    @property
    def counts_tokens(self) -> bool:
        return self.repetition_penalty != 1.0 or bool(
            self.frequency_penalty or self.presence_penalty
        )

    @property
    def is_plain(self) -> bool:
        """Whether nothing is added to a logit from the start."""
        return not (self.bias or self.allowed)


# The likeliest token: nothing is drawn, so no seed matters.
LIKELIEST = Sampling.of(seed=0, temperature=0.0)


@dataclass(frozen=True)
class Beam:
    """Beam search: ``width`` hypotheses side by side, the best ``best`` are the answer.

    length_penalty: a hypothesis is worth its log-probability / tokens ** length_penalty.
    early_stop: end when ``width`` hypotheses have ended; otherwise when no running one can
    still become better than they are.
    """

    width: int
    best: int
    length_penalty: float = 1.0
    early_stop: bool = False


@dataclass(frozen=True)
class ResumePolicy:
    """When a stream says where it is: every so many tokens (0: never), and at its end.

    on_stop: also when its engine stops before it is done; it ends with that, not with an error.
    """

    every: int = 0
    at_end: bool = False
    on_stop: bool = False

    @property
    def is_asked_for(self) -> bool:
        """Whether its caller wants any while all goes well."""
        return bool(self.every or self.at_end)


NO_CHECKPOINTS = ResumePolicy()


@dataclass(frozen=True, eq=False)
class Watch:
    """What of a row's state comes beside each token.

    tensors: names of carried tensors. units: indices into each as one row, or all of them.
    """

    tensors: tuple[str, ...]
    units: NDArray[Any] | slice


@dataclass(frozen=True)
class GenerateRequest:
    """Generate: a stream of tokens, or ``samples`` of them that share what prefills them.

    tokens: ids of the prompt or the source, or the values of the vector; at least one, but for a
    resumed prompt.
    first_sample: the number of the first sample. top: how many of the likeliest tokens
    come beside each token. beam: instead of drawing; samples is then beam.width.
    resumed: where an earlier stream was; samples is then 1.
    arrived: when it came, on the engine's clock in seconds. watch: of the state, beside each token.
    no_cache: neither look up nor keep what it reads.
    """

    tokens: tuple[Any, ...]
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    arrived: float
    min_tokens: int = 0
    samples: int = 1
    first_sample: int = 0
    top: int = 0
    beam: Beam | None = None
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    resumed: Snapshot | None = None
    watch: Watch | None = None
    no_cache: bool = False

    @property
    def streams(self) -> int:
        """Rows that it decodes in."""
        return self.beam.width if self.beam else self.samples

    @functools.cached_property
    def digest(self) -> int:
        """Of what it reads, or the stream did that it goes on with."""
        return self.resumed.digest if self.resumed else digest_of(self.tokens)


@dataclass(frozen=True)
class NextTokenRequest:
    """What may come after ``tokens``, reported once as a NextTokenDistribution; nothing is made.

    tokens: as GenerateRequest has them; may be none after ``start``. start: the state from which
    it reads on; None for the first one. token: what it reads after a source or after ``start``;
    None for what such a stream begins with. arrived: on the engine's clock, in seconds.
    """

    tokens: tuple[Any, ...]
    arrived: float
    start: State | None = None
    token: int | None = None

    # As a GenerateRequest says it of itself.
    streams: ClassVar[int] = 1
    max_tokens: ClassVar[int] = 1  # it holds its row for one step
    checkpoints: ClassVar[ResumePolicy] = NO_CHECKPOINTS
    resumed: ClassVar[None] = None
    no_cache: ClassVar[bool] = False


@dataclass(frozen=True)
class TagRequest:
    """StreamTag: a stream whose tokens its caller pushes, each answered with its label.

    arrived: when it came, on the engine's clock in seconds. top: how many of the
    likeliest labels are reported beside each. resumed: where an earlier stream was. watch: of the
    state, beside each token.
    """

    arrived: float
    top: int = 0
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    resumed: TagSnapshot | None = None
    watch: Watch | None = None


@dataclass(frozen=True)
class StepRequest:
    """StreamStep: a stream whose frames its caller pushes, each answered with what a step gives.

    shared: the place of its choice of what steps share, among all of the model's. arrived, resumed,
    watch: as TagRequest has them.
    """

    arrived: float
    shared: int = 0
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    resumed: StepSnapshot | None = None
    watch: Watch | None = None


@dataclass(frozen=True)
class ForecastRequest:
    """Forecast: ``samples`` ways in which each of some series may go on for ``horizon`` steps.

    Sample i of a series is the same whatever their number, and whatever other series are asked of.
    arrived: when it came, on the engine's clock in seconds.
    """

    series: tuple[EncodedSeries, ...]
    horizon: int
    samples: int
    seed: int
    arrived: float

    # It goes on by being drawn anew, which the engine does not notice (decision 0067).
    checkpoints: ClassVar[ResumePolicy] = NO_CHECKPOINTS
    resumed: ClassVar[None] = None

    @property
    def streams(self) -> int:
        """Rows that it decodes in."""
        return len(self.series) * self.samples

    @property
    def max_tokens(self) -> int:
        """Values of each of its streams."""
        return self.horizon


@dataclass(slots=True)
class FrameAnswered:
    """outputs: the bytes of each of the model's, of all steps one after the other; none where the
    frame was skipped. bytes_in: of the frame. state: what was watched after it, as TokenMade."""

    position: int
    steps: int
    outputs: tuple[bytes, ...]
    bytes_in: int
    is_late: bool = False
    is_skipped: bool = False
    state: bytes = b""


@dataclass(slots=True)
class ValueMade:
    """A value of a series, in units of its scale. series: its number in the request."""

    value: float
    position: int
    sample: int
    series: int


@dataclass(slots=True)
class TokenMade:
    """text: what the token adds; the part before a stop text where one follows.

    top: the likeliest tokens with their log-probabilities, the likeliest first. state: what was
    watched of the state that it was drawn from, or of a label's after its token was read: float16,
    little-endian.
    """

    token: int
    text: str
    position: int
    log_probability: float
    sample: int = 0
    top: tuple[tuple[int, float], ...] = ()
    state: bytes = b""


@dataclass(slots=True)
class TokensMade:
    """Tokens of one stream that follow each other, none of them its first, with nothing beside
    them.

    pieces: the text of each token id. position: of the first one. At least one token.
    """

    tokens: list[int]
    log_probabilities: list[float]
    position: int
    sample: int
    pieces: Sequence[str]

    def one_by_one(self) -> list[TokenMade]:
        pieces, sample = self.pieces, self.sample
        return [
            TokenMade(token, pieces[token], position, log_probability, sample)
            for position, (token, log_probability) in enumerate(
                zip(self.tokens, self.log_probabilities, strict=True), self.position
            )
        ]

    def split(self, count: int) -> tuple[TokensMade, TokensMade]:
        """The first ``count`` of them, and the others."""
        tokens, known = self.tokens, self.log_probabilities
        first = TokensMade(tokens[:count], known[:count], self.position, self.sample, self.pieces)
        position = self.position + count
        others = TokensMade(tokens[count:], known[count:], position, self.sample, self.pieces)
        return first, others


@dataclass(frozen=True)
class Snapshot:
    """Where a stream is between two tokens: all it takes to go on elsewhere, bit for bit.

    state: what the next step reads of the carried tensors; token: the id it reads.
    digest: of what the stream began with reading, for its random numbers.
    made: tokens drawn so far, which is the place in the stream's random numbers too.
    delivered: of them, how many the caller has got. held: drawn, and held back since they
    may become a stop text. counts: how often each token was made, where a penalty asks.
    tokens: of the request, where prefill must be done again or a penalty asks; else empty.
    changed: digest of all changes that callers made to its state; empty for none.
    """

    sampling: Sampling
    sample: int
    max_tokens: int
    min_tokens: int
    stop: tuple[str, ...]
    input_tokens: int
    tokens: tuple[Any, ...]
    token: int
    made: int
    delivered: int
    held: tuple[TokenMade, ...]
    counts: Mapping[int, int]
    state: State
    changed: str = ""
    digest: int = 0

    @property
    def next_position(self) -> int:
        """Of the first token that a caller gets who goes on from here."""
        return self.made - len(self.held)


@dataclass(frozen=True)
class TagSnapshot:
    """Where a stream of labels is between two tokens: all it takes to go on, bit for bit.

    made: labels so far. state: what the next step reads. changed: as Snapshot has it.
    """

    made: int
    state: State
    changed: str = ""

    @property
    def next_position(self) -> int:
        return self.made


@dataclass(frozen=True)
class StepSnapshot(TagSnapshot):
    """Where a stream of frames is between two frames, of which ``made`` are answered."""


@dataclass(frozen=True)
class Checkpoint:
    """The caller has got every token up to here, and could go on from it."""

    sample: int
    snapshot: Snapshot | TagSnapshot


@dataclass(frozen=True)
class NextTokenDistribution:
    """What may come after all that was read.

    log_probabilities: (vocabulary,), the model's own. state: every tensor of it, as the next
    step reads it.
    """

    log_probabilities: NDArray[Any]
    state: State


@dataclass(frozen=True)
class Drained:
    """Whatever the caller has pushed is answered: nothing more comes before it pushes again."""


CAUGHT_UP = Drained()


@dataclass(frozen=True)
class SampleFinished:
    """One of a request's streams ended.

    log_probability: the sum over its tokens, an end token among them. score: of a beam's
    hypothesis, by its length penalty.
    """

    sample: int
    reason: FinishReason
    output_tokens: int
    log_probability: float
    score: float | None = None


@dataclass(frozen=True)
class Finished:
    """The last event of a request.

    reason: of the stream that ended last. output_tokens: of all its streams together.
    queue_seconds: from arrival to the start of prefill.
    first_token_seconds: from arrival to the first token; zero when none was made.
    cached_tokens: of the input, that a prefix cache knew.
    """

    reason: FinishReason
    input_tokens: int
    output_tokens: int
    queue_seconds: float
    first_token_seconds: float
    cached_tokens: int = 0


@dataclass(frozen=True)
class Failed:
    """The last event of a request whose engine stopped."""

    error: RequestError


Event = (
    TokenMade
    | TokensMade
    | ValueMade
    | FrameAnswered
    | Checkpoint
    | NextTokenDistribution
    | Drained
    | SampleFinished
    | Finished
    | Failed
)

# What a step makes of a stream: much of it goes into one message, and all else is said at once.
MADE = frozenset((TokenMade, TokensMade, ValueMade, FrameAnswered))


EventT = TypeVar("EventT")


class Sink(Generic[EventT]):
    """Where the events of one request go: an engine puts them in, its reader is woken for them.

    Unless it says otherwise, a sink gets one event, which is due at once.
    """

    def put(self, event: EventT) -> None:
        raise NotImplementedError

    def mark_if_full(self) -> bool:
        """Whether the reader is so far behind that nothing more should be made for it.

        If so, the sink has its streams resumed once the reader has caught up.
        """
        return False

    @property
    def tokens_at_once(self) -> int:
        """So many tokens of a stream it gets together, where nothing else is to be said."""
        return 1

    @property
    def is_due(self) -> bool:
        """Whether what it holds is worth waking the reader for."""
        return True

    @property
    def is_urgent(self) -> bool:
        """Whether its reader is woken before others."""
        return True

    @property
    def unread_since(self) -> float | None:
        """Since when the reader is behind, on the engines' clock; None for one that is not."""
        return None

    def give_up(self, error: RequestError) -> None:
        """Free its place now; the reader gets ``error``. Of one that may be behind alone."""
        raise NotImplementedError

    def wake(self) -> None:
        raise NotImplementedError
