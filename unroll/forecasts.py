"""Forecasts: series and what may come of them, and one forecast over several calls."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypedDict

from unroll.channel import Retries
from unroll.failover import NO_LAST_MESSAGE, REFUSALS, is_broken
from unroll.types import RequestFailed
from unroll.v1 import unroll_pb2 as pb

_SEEDS = 2**64
UNLIKE = RequestFailed(
    "FAILED_PRECONDITION",
    "the server makes other steps than those that came before: it has another bundle, or kernels "
    "that round otherwise; send the request again",
)


@dataclass(frozen=True)
class Series:
    """values: the last ones that are known, oldest first; None or NaN where one is missing.

    start: when the first value was; may be left out where the model reads no calendar.
    covariates: by name, one for each of the values and then one for each step to forecast.
    """

    values: Sequence[float | None]
    start: str | date | datetime = ""
    covariates: Mapping[str, Sequence[float]] = field(default_factory=dict)


class ForecastOptions(TypedDict, total=False):
    """Options of forecast; proto/unroll/v1/unroll.proto has each in full.

    horizon: steps, 0 for the model's most. samples: ways to go on that are drawn of each series, 0
    for 100. quantiles: of them that are answered, none for the samples themselves. seed: None for
    one that is chosen. frequency: refused where the model's is another. version: of the model,
    empty for the one that is served.

    resume_token: of an earlier forecast, to go on with it; series, horizon, samples and seed are in
    it. allow_inexact: go on even where other kernels may round otherwise. resume_every: steps
    between two resume tokens, 0 for none but when the server stops.
    """

    horizon: int
    samples: int
    quantiles: Sequence[float]
    seed: int | None
    frequency: str
    version: str
    resume_token: bytes
    allow_inexact: bool
    resume_every: int


@dataclass(frozen=True)
class ForecastStep:
    """One step of one series.

    series: its place in the request. position: from 0. time: in ISO 8601, empty where the series
    has no start. quantiles: in the order of the request; samples: where it has none.
    """

    series: int
    position: int
    time: str
    mean: float
    quantiles: tuple[float, ...]
    samples: tuple[float, ...]


@dataclass(frozen=True)
class ForecastEnd:
    """Values that were read and drawn, by the server that answered last; times in seconds."""

    input_values: int
    output_values: int
    queue_seconds: float
    time_to_first_step_seconds: float


@dataclass(frozen=True)
class ForecastChunk:
    """One message: its new steps, the seed in the first one, the end in the last.

    resume_token: goes on with the steps that have not come, empty in most; in the last message,
    which then has no end, where the server stops and the caller goes on by itself.
    """

    steps: list[ForecastStep]
    seed: int | None
    end: ForecastEnd | None
    resume_token: bytes = b""


def forecast_request(
    model: str, series: Sequence[Series | Sequence[float | None]], options: ForecastOptions
) -> pb.ForecastRequest:
    """Raises ValueError for a number its field cannot hold, TypeError for an unknown option."""
    unknown = options.keys() - ForecastOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"forecast() has no option {min(unknown)!r}")
    rest: dict[str, Any] = dict(options)
    return pb.ForecastRequest(
        model=model,
        model_version=rest.pop("version", ""),
        series=[_to_series(one) for one in series],
        **rest,
    )


def _to_series(given: Series | Sequence[float | None]) -> pb.Series:
    series = given if isinstance(given, Series) else Series(given)
    count = len(series.values)
    start = series.start if isinstance(series.start, str) else series.start.isoformat()
    return pb.Series(
        values=[math.nan if value is None else value for value in series.values],
        start=start,
        covariates=[
            pb.Covariate(name=name, past=numbers[:count], future=numbers[count:])
            for name, numbers in series.covariates.items()
        ],
    )


def to_forecast_chunk(response: pb.ForecastResponse) -> ForecastChunk:
    return ForecastChunk(
        [_to_step(step) for step in response.steps],
        response.seed if response.HasField("seed") else None,
        _to_end(response.usage) if response.HasField("usage") else None,
        response.resume_token,
    )


def _to_step(step: pb.ForecastStep) -> ForecastStep:
    return ForecastStep(
        step.series, step.position, step.time, step.mean, tuple(step.quantiles), tuple(step.samples)
    )


def _to_end(usage: pb.Usage) -> ForecastEnd:
    return ForecastEnd(
        usage.input_tokens,
        usage.output_tokens,
        usage.queue_seconds,
        usage.time_to_first_token_seconds,
    )


class ResumableForecast:
    """One forecast over several calls, since servers stop and connections break.

    A server that stops gives a resume token, and another one goes on with it. A forecast whose call
    broke goes on with the last token; without one, or where that is refused, it is made anew by its
    seed. The steps that the caller has are left out, and the last of each series is compared, so
    that two forecasts are never joined. It knows no channel and no clock.

    wait_seconds: before the next call. draw: uniform in 0 … 1. choose_seed: for requests without
    one, so that it is known before a server reports it.
    """

    def __init__(
        self,
        request: pb.ForecastRequest,
        retries: Retries,
        draw: Callable[[], float] = random.random,
        choose_seed: Callable[[], int] = lambda: secrets.randbelow(_SEEDS),
    ) -> None:
        self.request = request
        self.wait_seconds = 0.0
        self.is_over = False
        self._retries = retries
        self._draw = draw
        self._failures = 0
        self._has_seed = self._brought = self._is_handed_over = False
        self._seen: dict[int, ForecastStep] = {}  # of each series, the last that was passed on
        if not request.HasField("seed") and not request.resume_token:
            request.seed = choose_seed()
        self._whole = request

    def take(self, response: pb.ForecastResponse) -> ForecastChunk | None:
        """What is new in a message; None for nothing.

        Raises RequestFailed where a server makes other steps than those that the caller has.
        """
        chunk = to_forecast_chunk(response)
        fresh = [step for step in chunk.steps if self._is_new(step)]
        seed = None if self._has_seed else chunk.seed
        self._has_seed |= seed is not None
        self._brought |= bool(fresh)
        self.is_over = chunk.end is not None
        # One that comes with steps says where they end; alone, that the server stops.
        self._is_handed_over = bool(chunk.resume_token) and not chunk.steps
        if chunk.resume_token:
            self.request = self._resumed(chunk.resume_token)
        if self._is_handed_over and self._retries.attempts > 1:
            return None
        if not (fresh or chunk.resume_token or chunk.end) and seed is None:
            return None
        return ForecastChunk(fresh, seed, chunk.end, chunk.resume_token)

    def _resumed(self, token: bytes) -> pb.ForecastRequest:
        """What the token does not hold is asked for anew."""
        asked = self.request
        return pb.ForecastRequest(
            model=asked.model,
            model_version=asked.model_version,
            quantiles=asked.quantiles,
            resume_token=token,
            allow_inexact=asked.allow_inexact,
            resume_every=asked.resume_every,
        )

    def _is_new(self, step: ForecastStep) -> bool:
        """The steps of a series come in order."""
        last = self._seen.get(step.series)
        if last is not None and step.position <= last.position:
            if step.position == last.position and step != last:
                raise UNLIKE
            return False
        self._seen[step.series] = step
        return True

    def end(self) -> None:
        """The call ended with status OK. Raises as fail()."""
        if self._is_handed_over:
            self.is_over = self._retries.attempts == 1  # the caller has the token
        if not self.is_over:
            self.fail(NO_LAST_MESSAGE)

    def fail(self, failure: RequestFailed) -> None:
        """The call ended with ``failure``, which is raised if it is final."""
        if self.is_over:
            return
        self._failures = 1 if self._brought else self._failures + 1
        may_go_on = is_broken(failure) or self._retries.waits_for(failure.retry_after_seconds)
        # Another server may take what this one refused, once one has taken it.
        may_go_on |= self._has_seed and failure.code in REFUSALS
        if not may_go_on or self._failures >= self._retries.attempts:
            raise failure
        if failure.code in REFUSALS:
            self.request = self._whole  # its token is good elsewhere, or nowhere any more
        self._brought = False
        wait = self._retries.wait(self._failures, self._draw)
        self.wait_seconds = max(wait, failure.retry_after_seconds or 0.0)
