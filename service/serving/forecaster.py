"""The forecaster: series in, how each may go on out, step by step."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bundle.series import EncodedSeries, SeriesSpec, encode_series
from bundle.time_features import Frequency, TimeInvalid, parse_time
from service.engine.errors import ServiceStopping, WrongInput
from service.engine.requests import Event, Finished, ForecastRequest, ValueMade
from service.serving.forecast_resume import ForecastSnapshot, describe, restore
from service.serving.inputs import MOST_NUMBER, off_loop
from service.serving.model_info import ModelCard
from service.serving.output_stream import TokenStream
from service.serving.resume_token import FORECAST, ResumeTokens, ServedBundle
from service.serving.served_model import ServedModel
from service.serving.worker import EngineThread

Array = NDArray[np.float64]

USUAL_SAMPLES = 100
# Quantiles of fewer say little, and a spread takes two.
LEAST_SAMPLES, MAX_SAMPLES = 2, 1024
MAX_SERIES = 1024
MAX_QUANTILES = 99
MAX_NUMBERS = 65_536
# Of a value: its square is still a number of float64.
MOST_VALUE = 1e30
# Of each value that is drawn, until the step that it belongs to is sent.
_VALUE_BYTES = 200
_SEEDS = 2**64


@dataclass(frozen=True)
class CovariateParams:
    past: Sequence[float]
    future: Sequence[float]


@dataclass(frozen=True)
class SeriesParams:
    """values: NaN where one is missing. start: in ISO 8601, may be empty. covariates: by name."""

    values: Sequence[float]
    start: str = ""
    covariates: Mapping[str, CovariateParams] = field(default_factory=dict)


@dataclass(frozen=True)
class ForecastParams:
    """horizon, samples: 0 for the usual ones. quantiles: none for the samples themselves. seed:
    None for one of the server's. frequency: empty for the model's.

    resume: None where the caller takes no resume tokens. resumed: where an earlier forecast was,
    whose series, horizon, samples and seed are taken.
    """

    series: Sequence[SeriesParams]
    horizon: int = 0
    samples: int = 0
    quantiles: Sequence[float] = ()
    seed: int | None = None
    frequency: str = ""
    resume: ResumeParams | None = None
    resumed: ForecastSnapshot | None = None


@dataclass(frozen=True)
class ResumeParams:
    """token: of an earlier forecast, empty for a new one. every: steps between two tokens, 0 for
    none but at a stop. subject: whom they are issued to."""

    token: bytes = b""
    allow_inexact: bool = False
    every: int = 0
    subject: str = ""


@dataclass(frozen=True)
class ForecastStep:
    """series: its number in the request. position: from 0. time: empty where the series has no
    start.

    samples: (samples,) in the series' own unit, in their order.
    """

    series: int
    position: int
    time: str
    samples: Array

    @property
    def mean(self) -> float:
        return math.fsum(self.samples.tolist()) / len(self.samples)

    def quantiles(self, wanted: Sequence[float]) -> list[float]:
        """By linear interpolation between samples."""
        found: list[float] = np.quantile(self.samples, wanted).tolist() if wanted else []
        return found


@dataclass(frozen=True)
class ForecastMessage:
    """What is complete since the last one. finished: in the last one only, but not where the
    server stops before: then that has a resume_token.
    """

    steps: Sequence[ForecastStep]
    finished: Finished | None
    resume_token: bytes = b""


class OpenForecast:
    """A forecast under way: read its messages; close() it in any case.

    snapshot: where it begins. every: steps between two resume tokens. sign: makes one; None where
    the caller takes none.
    """

    def __init__(
        self,
        events: TokenStream,
        snapshot: ForecastSnapshot,
        spec: SeriesSpec,
        every: int,
        sign: Callable[[ForecastSnapshot], bytes] | None,
    ) -> None:
        self.seed = snapshot.seed
        self._events = events
        self._snapshot = snapshot
        self._is_count = spec.is_count
        self._every = every
        self._sign = sign
        self._delivered = list(snapshot.delivered)
        self._signed_at = min(self._delivered)
        # Of each step under way: its samples, and how many of them are there.
        self._open: dict[tuple[int, int], tuple[Array, list[int]]] = {}

    async def __aiter__(self) -> AsyncIterator[ForecastMessage]:
        """Raises EngineFailed when the engine gives the forecast up, and ServiceStopping when the
        service stops and no resume token says so."""
        try:
            async for events in self._events:
                message = self._message(events)
                if message.steps or message.finished:
                    yield message
        except ServiceStopping:
            token = self._token()
            if not token:
                raise
            yield ForecastMessage((), None, token)

    def close(self) -> None:
        self._events.close()

    def _message(self, events: Sequence[Event]) -> ForecastMessage:
        whole = [self._add(event) for event in events if type(event) is ValueMade]
        steps, last = [step for step in whole if step], events[-1]
        if isinstance(last, Finished):
            return ForecastMessage(steps, last)
        return ForecastMessage(steps, None, self._token() if self._is_due() else b"")

    def _is_due(self) -> bool:
        """Whether so many steps of every series have come since the last resume token."""
        made = min(self._delivered)
        is_due = 0 < self._every <= made - self._signed_at
        if is_due:
            self._signed_at = made
        return is_due

    def _token(self) -> bytes:
        """Empty where the caller takes none, or it would be larger than servers read."""
        here = replace(self._snapshot, delivered=tuple(self._delivered))
        return self._sign(here) if self._sign else b""

    def _add(self, made: ValueMade) -> ForecastStep | None:
        """The step that is complete with this value, if it is and the caller does not have it."""
        snapshot, key = self._snapshot, (made.series, made.position)
        if made.position < snapshot.delivered[made.series]:
            return None
        if key not in self._open:
            self._open[key] = np.zeros(snapshot.samples), [snapshot.samples]
        samples, left = self._open[key]
        samples[made.sample] = made.value
        left[0] -= 1
        if left[0]:
            return None
        del self._open[key]
        self._delivered[made.series] = made.position + 1
        samples *= snapshot.series[made.series].scale
        times = snapshot.times[made.series]
        return ForecastStep(
            made.series,
            made.position,
            times[made.position] if times else "",
            np.round(samples) if self._is_count else samples,
        )


class ForecasterModel(ServedModel):
    """choose_seed: for requests without one. clock: the engine's, in seconds."""

    does = "forecast"

    def __init__(
        self,
        card: ModelCard,
        spec: SeriesSpec,
        thread: EngineThread,
        resume_tokens: ResumeTokens,
        clock: Callable[[], float] = time.monotonic,
        choose_seed: Callable[[], int] = lambda: secrets.randbelow(_SEEDS),
    ) -> None:
        super().__init__(card)
        self.spec = spec
        self.thread = thread
        self.resume_tokens = resume_tokens
        self.clock = clock
        self.choose_seed = choose_seed
        self._frequency = Frequency(spec.frequency)

    @property
    def calls(self) -> str:
        return "Forecast"

    def answer_bytes(self, params: ForecastParams) -> int:
        """What the answer takes at most while it is made."""
        if params.resumed:
            request = params.resumed
            return len(request.series) * request.samples * request.horizon * _VALUE_BYTES
        streams = len(params.series) * (params.samples or USUAL_SAMPLES)
        return streams * min(params.horizon or self._most_steps, self._most_steps) * _VALUE_BYTES

    def with_resumed(self, params: ForecastParams) -> ForecastParams:
        """``params`` with what its resume token says, where it has one.

        Raises WrongInput, ResumeInvalid or ResumeRefused.
        """
        resume = params.resume
        if not (resume and resume.token):
            return params
        if params.series or params.horizon or params.samples or params.seed is not None:
            raise WrongInput(
                "a resume token has the series, horizon, samples and seed of its forecast; leave "
                "them out beside it"
            )
        facts = self.resume_tokens.open_facts(
            resume.token, self._bundle, resume.subject, resume.allow_inexact
        )
        snapshot = restore(*facts)
        self._check_streams(len(snapshot.series), snapshot.samples)
        return replace(params, resumed=snapshot)

    async def forecast(self, params: ForecastParams) -> OpenForecast:
        """Raises WrongInput, QueueFull or EngineFailed."""
        snapshot = params.resumed or await self._begin(params)
        _check_quantiles(params.quantiles)
        request = ForecastRequest(
            snapshot.series, snapshot.horizon, snapshot.samples, snapshot.seed, self.clock()
        )
        # A message a step: of all series, which run side by side.
        each = request.streams
        events = TokenStream.open(self.thread, request, each, request.streams)
        resume = params.resume
        if resume is None:
            return OpenForecast(events, snapshot, self.spec, 0, None)
        sign = partial(self._sign, resume.subject)
        return OpenForecast(events, snapshot, self.spec, resume.every, sign)

    async def _begin(self, params: ForecastParams) -> ForecastSnapshot:
        horizon, samples = self._check(params)
        numbers = sum(map(_numbers_of, params.series))
        read = await off_loop(numbers, lambda: self._read_all(params.series, horizon))
        return ForecastSnapshot(
            tuple(series for series, _ in read),
            tuple(tuple(times) for _, times in read),
            horizon,
            samples,
            self.choose_seed() if params.seed is None else params.seed,
            (0,) * len(read),
        )

    def _sign(self, subject: str, snapshot: ForecastSnapshot) -> bytes:
        """Empty for a token that would be larger than servers read."""
        token = self.resume_tokens.sign_facts(*describe(snapshot), self._bundle, subject)
        return token if len(token) <= self.resume_tokens.largest_bytes else b""

    @property
    def _bundle(self) -> ServedBundle:
        return ServedBundle.of(self.card, FORECAST)

    @property
    def _most_steps(self) -> int:
        return self.card.limits["horizon"]

    # -- checks --------------------------------------------------------------------------------

    def _check(self, params: ForecastParams) -> tuple[int, int]:
        """The horizon and the samples of a request that is within the limits."""
        count, name = len(params.series), self.card.name
        if not 1 <= count <= MAX_SERIES:
            raise WrongInput(f"series holds {count} entries; send 1 to {MAX_SERIES} a request")
        if params.frequency and params.frequency != self.spec.frequency:
            raise WrongInput(
                f"frequency is {params.frequency!r}, model {name!r} forecasts series of "
                f"{self.spec.frequency!r}; leave it, or ask another model"
            )
        horizon = params.horizon or self._most_steps
        if horizon > self._most_steps:
            raise WrongInput(
                f"horizon is {horizon}; model {name!r} forecasts 1 to {self._most_steps} steps"
            )
        samples = params.samples or USUAL_SAMPLES
        if not LEAST_SAMPLES <= samples <= MAX_SAMPLES:
            raise WrongInput(f"samples is {samples}; choose {LEAST_SAMPLES} to {MAX_SAMPLES}")
        self._check_streams(count, samples)
        numbers = sum(map(_numbers_of, params.series))
        if numbers > MAX_NUMBERS:
            raise WrongInput(
                f"series hold {numbers} numbers together; send at most {MAX_NUMBERS} a request"
            )
        return horizon, samples

    def _check_streams(self, series: int, samples: int) -> None:
        if series * samples > self.thread.limit:
            raise WrongInput(
                f"{series} series of {samples} samples are {series * samples} streams, and this "
                f"server takes {self.thread.limit} at once; send fewer series or samples"
            )

    def _read_all(
        self, series: Sequence[SeriesParams], horizon: int
    ) -> list[tuple[EncodedSeries, list[str]]]:
        return [self._read(one, horizon, f"series[{number}]") for number, one in enumerate(series)]

    def _read(
        self, params: SeriesParams, horizon: int, where: str
    ) -> tuple[EncodedSeries, list[str]]:
        """What the model reads of a series, and the times of the steps to come."""
        values = self._values(params, f"{where}.values")
        covariates = self._covariates(params, horizon, where)
        first = max(0, len(values) - self.card.limits["context"])
        try:
            start = self._start(params, where)
            encoded = encode_series(
                self.spec, values[first:], start, covariates[first:], horizon, first
            )
            times = [] if start is None else self._times(start, len(values), horizon)
        except TimeInvalid as error:
            raise WrongInput(f"{where}.start: {error}") from error
        return encoded, times

    def _times(self, start: np.datetime64, first: int, count: int) -> list[str]:
        times: list[str] = np.datetime_as_string(
            self._frequency.times(start, first, count)
        ).tolist()
        return times

    def _start(self, params: SeriesParams, where: str) -> np.datetime64 | None:
        """Raises WrongInput where a calendar is read and there is none, or TimeInvalid."""
        if params.start:
            return parse_time(params.start)
        if self.spec.calendar:
            raise WrongInput(
                f"{where}.start is empty; model {self.card.name!r} reads the calendar, so say "
                "when the first value was, such as 2024-03-01"
            )
        return None

    def _values(self, params: SeriesParams, where: str) -> Array:
        values, least = np.array(params.values, np.float64), self.spec.least_context
        if len(values) < least:
            raise WrongInput(
                f"{where} has {len(values)} entries; model {self.card.name!r} reads at least "
                f"{least} to forecast from"
            )
        missing = np.isnan(values)
        if missing.all():
            raise WrongInput(f"{where} has no entry but NaN; send one that is known")
        _check_finite(np.where(missing, 0.0, values), where, MOST_VALUE)
        if self.spec.is_count:
            wrong = ~missing & ((values < 0) | (values != np.floor(values)))
            if wrong.any():
                place = int(wrong.argmax())
                raise WrongInput(
                    f"{where}[{place}] is {values[place]:g}; model {self.card.name!r} forecasts "
                    "counts: send whole numbers from 0 on, or NaN"
                )
        return values

    def _covariates(self, params: SeriesParams, horizon: int, where: str) -> Array:
        """(values + horizon, covariates), in the model's order."""
        known = self.spec.covariates
        for name in params.covariates:
            if name not in known:
                takes = ", ".join(map(repr, known)) or "none"
                raise WrongInput(
                    f"{where}.covariates has {name!r}, model {self.card.name!r} takes {takes}"
                )
        columns = [self._covariate(params, name, horizon, where) for name in known]
        return np.stack(columns, axis=1) if columns else np.zeros((len(params.values) + horizon, 0))

    def _covariate(self, params: SeriesParams, name: str, horizon: int, where: str) -> Array:
        what = f"{where}.covariates[{name!r}]"
        if name not in params.covariates:
            raise WrongInput(f"{what} is missing; model {self.card.name!r} reads it of every step")
        given = params.covariates[name]
        for part, wanted, says in (
            ("past", len(params.values), "as many as values"),
            ("future", horizon, "one for each step of the horizon"),
        ):
            numbers = np.array(getattr(given, part), np.float64)
            if len(numbers) != wanted:
                raise WrongInput(f"{what}.{part} has {len(numbers)} entries; send {wanted}, {says}")
            _check_finite(numbers, f"{what}.{part}", MOST_NUMBER)
        return np.array([*given.past, *given.future], np.float64)


def _numbers_of(params: SeriesParams) -> int:
    beside = sum(len(one.past) + len(one.future) for one in params.covariates.values())
    return len(params.values) + beside


def _check_finite(numbers: Array, where: str, most: float) -> None:
    wrong = ~(np.abs(numbers) <= most)
    if wrong.any():
        place = int(wrong.argmax())
        raise WrongInput(f"{where}[{place}] is {numbers[place]:g}; send numbers up to ±{most:g}")


def _check_quantiles(quantiles: Sequence[float]) -> None:
    if len(quantiles) > MAX_QUANTILES:
        raise WrongInput(f"quantiles holds {len(quantiles)} entries; send at most {MAX_QUANTILES}")
    for number, quantile in enumerate(quantiles):
        if not 0 < quantile < 1:
            raise WrongInput(f"quantiles[{number}] is {quantile:g}; choose one between 0 and 1")
