"""What goes into an engine and what comes out: values, no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from service.engine.errors import RequestError


class FinishReason(enum.Enum):
    END = "end"  # the model made its end token
    STOP = "stop"  # a stop text came up
    LENGTH = "length"  # max_tokens were made
    CANCELLED = "cancelled"  # the caller left; nobody reads this one


@dataclass(frozen=True)
class SamplingShape:
    """temperature 0 takes the most probable token; top_k 0 and top_p 1 cut nothing."""

    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class Sampling(SamplingShape):
    """seed: 0 … 2⁶⁴-1."""

    seed: int


@dataclass(frozen=True)
class Generation:
    """One stream to make.

    tokens: ids of the prompt or the source, at least one.
    arrived: when it was asked for, on the engine's clock in seconds.
    """

    tokens: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    arrived: float


@dataclass(frozen=True, slots=True)
class TokenMade:
    token: int
    text: str
    position: int
    log_probability: float


@dataclass(frozen=True)
class Finished:
    """The last event of a stream.

    queue_seconds: from arrival to the start of priming.
    first_token_seconds: from arrival to the first token; zero when none was made.
    """

    reason: FinishReason
    input_tokens: int
    output_tokens: int
    queue_seconds: float
    first_token_seconds: float


@dataclass(frozen=True)
class Failed:
    """The last event of a stream whose engine stopped."""

    error: RequestError


Event = TokenMade | Finished | Failed
