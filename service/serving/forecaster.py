"""The forecaster: series in, how each may go on out, step by step."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.series import EncodedSeries, SeriesSpec, encode_series
from bundle.time_features import Frequency, TimeInvalid, parse_time
from service.engine.errors import WrongInput
from service.engine.requests import Event, Finished, ForecastRequest, ValueMade
from service.serving.inputs import MOST_NUMBER, off_loop
from service.serving.model_info import ModelCard
from service.serving.output_stream import TokenStream
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
    None for one of the server's. frequency: empty for the model's."""

    series: Sequence[SeriesParams]
    horizon: int = 0
    samples: int = 0
    quantiles: Sequence[float] = ()
    seed: int | None = None
    frequency: str = ""


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
    """What is complete since the last one. finished: in the last one only."""

    steps: Sequence[ForecastStep]
    finished: Finished | None


class OpenForecast:
    """A forecast under way: read its messages; close() it in any case."""

    def __init__(
        self, events: TokenStream, request: ForecastRequest, spec: SeriesSpec,
        times: Sequence[Sequence[str]],
    ) -> None:  # fmt: skip
        self.seed = request.seed
        self._events = events
        self._request = request
        self._is_count = spec.is_count
        self._times = times
        # Of each step under way: its samples, and how many of them are there.
        self._open: dict[tuple[int, int], tuple[Array, list[int]]] = {}

    async def __aiter__(self) -> AsyncIterator[ForecastMessage]:
        """Raises EngineFailed or ServiceStopping when the engine gives the forecast up."""
        async for events in self._events:
            message = self._message(events)
            if message.steps or message.finished:
                yield message

    def close(self) -> None:
        self._events.close()

    def _message(self, events: Sequence[Event]) -> ForecastMessage:
        whole = [self._add(event) for event in events if type(event) is ValueMade]
        last = events[-1]
        return ForecastMessage(
            [step for step in whole if step], last if isinstance(last, Finished) else None
        )

    def _add(self, made: ValueMade) -> ForecastStep | None:
        """The step that is complete with this value, if it is."""
        key = made.series, made.position
        if key not in self._open:
            self._open[key] = np.zeros(self._request.samples), [self._request.samples]
        samples, left = self._open[key]
        samples[made.sample] = made.value
        left[0] -= 1
        if left[0]:
            return None
        del self._open[key]
        samples *= self._request.series[made.series].scale
        times = self._times[made.series]
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
        clock: Callable[[], float] = time.monotonic,
        choose_seed: Callable[[], int] = lambda: secrets.randbelow(_SEEDS),
    ) -> None:
        super().__init__(card)
        self.spec = spec
        self.thread = thread
        self.clock = clock
        self.choose_seed = choose_seed
        self._frequency = Frequency(spec.frequency)

    @property
    def calls(self) -> str:
        return "Forecast"

    def answer_bytes(self, params: ForecastParams) -> int:
        """What the answer takes at most while it is made."""
        streams = len(params.series) * (params.samples or USUAL_SAMPLES)
        return streams * min(params.horizon or self._most_steps, self._most_steps) * _VALUE_BYTES

    async def forecast(self, params: ForecastParams) -> OpenForecast:
        """Raises WrongInput, QueueFull or EngineFailed."""
        horizon, samples = self._check(params)
        numbers = sum(map(_numbers_of, params.series))
        read = await off_loop(numbers, lambda: self._read_all(params.series, horizon))
        request = ForecastRequest(
            tuple(series for series, _ in read),
            horizon,
            samples,
            self.choose_seed() if params.seed is None else params.seed,
            self.clock(),
        )
        # A message a step: of all series, which run side by side.
        each = request.streams
        events = TokenStream.open(self.thread, request, each, request.streams)
        return OpenForecast(events, request, self.spec, [times for _, times in read])

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
        if count * samples > self.thread.limit:
            raise WrongInput(
                f"{count} series of {samples} samples are {count * samples} streams, and this "
                f"server takes {self.thread.limit} at once; send fewer series or samples"
            )
        _check_quantiles(params.quantiles)
        numbers = sum(map(_numbers_of, params.series))
        if numbers > MAX_NUMBERS:
            raise WrongInput(
                f"series hold {numbers} numbers together; send at most {MAX_NUMBERS} a request"
            )
        return horizon, samples

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
