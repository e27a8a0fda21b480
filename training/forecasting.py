"""Parts of every script that trains a forecaster: teacher forcing, sample paths, figures and
floors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.rng import BLOCK, key_of, uniform_block
from bundle.series import SeriesSpec
from bundle.time_features import parse_time
from training.data.series import (
    Series,
    SeriesBatch,
    Window,
    draw_windows,
    encode_window,
    stack_windows,
)
from training.floors.ets import Smoothing, has_ets
from training.forecast_metrics import (
    crps,
    fill_missing,
    is_covered,
    naive_error,
    seasonal_naive,
    smape,
)
from training.held_out import SeriesQuestion
from training.measurements import Measurement, ratio
from training.models.forecaster import Forecaster

Array = NDArray[Any]

# What is measured of forecasts, in which unit.
MEASURES = (
    ("CRPS", "% of the mean value"),
    ("sMAPE", "%"),
    ("MASE", ""),
    ("in the 80 % interval", "%"),
)
# Of a held-out forecast, where a recipe does not say.
SAMPLES = 100
# Rows that are drawn side by side: each takes some kilobytes for its cells.
_ROWS = 4096


@dataclass(frozen=True)
class ForecastSettings:
    """context: values that a forecast reads at most. horizon: steps of a forecast at most.
    least_context: values that it reads at least. batch: windows. batches: of an epoch.
    calendar: whether features of timestamps are read. samples: paths of a held-out forecast.
    """

    context: int
    horizon: int
    least_context: int
    batch: int
    batches: int
    calendar: bool
    samples: int


@dataclass(frozen=True)
class ForecastTask:
    """Teacher forcing on windows anywhere in ``training``; validation is the last ``horizon``
    values of each series of ``validation``, of which training has seen what comes before."""

    spec: SeriesSpec
    training: Sequence[Series]
    validation: Sequence[Series]
    settings: ForecastSettings
    seed: int

    def batches(self, epoch: int) -> list[SeriesBatch]:
        settings = self.settings
        choose = random.Random(self.seed * 10_007 + epoch)
        drawn = draw_windows(
            self.training, settings.least_context, settings.batch * settings.batches, choose
        )
        return [
            stack_windows(part, self.spec, settings.context, settings.horizon, False)
            for part in _parts(drawn, settings.batch)
        ]

    def loss(
        self, model: Forecaster, batch: tuple[Tensor, ...], carry: None
    ) -> tuple[Tensor, None]:
        # The loop moves tensors between devices, and hands on a plain tuple.
        return nats_per_value(model, SeriesBatch(*batch)), None

    @cached_property
    def _validation_batches(self) -> list[SeriesBatch]:
        settings = self.settings
        windows = [
            Window(s, len(s) - settings.horizon)
            for s in self.validation
            if len(s) >= settings.horizon + settings.least_context
        ]
        return [
            stack_windows(part, self.spec, settings.context, settings.horizon, True)
            for part in _parts(windows, 256)
        ]

    def validate(self, model: Forecaster) -> float:
        batches = self._validation_batches
        losses = [
            nats_per_value(model, batch).item() * float(batch.counts.sum()) for batch in batches
        ]
        return sum(losses) / sum(float(batch.counts.sum()) for batch in batches)


def nats_per_value(model: Forecaster, batch: SeriesBatch) -> Tensor:
    """The mean -log p of the values that count, in units of their series' scale."""
    state = model.first_state(batch.log_scale)
    # What is behind a window's end counts for nothing, and padded rows are read faster than packed.
    parameters, _ = model(batch.series, batch.features, None, state)
    log_scale = batch.log_scale.unsqueeze(1).expand_as(batch.targets)
    found = model.head.log_likelihood(parameters, batch.targets, log_scale)
    return -torch.where(batch.counts > 0, found, 0.0).sum() / batch.counts.sum()


def training_features(task: ForecastTask) -> Tensor:
    """(steps, features) of a sample of windows, to standardise by."""
    settings = task.settings
    windows = draw_windows(
        task.training, settings.least_context, min(512, 8 * len(task.training)), random.Random(0)
    )
    stacked = stack_windows(windows, task.spec, settings.context, settings.horizon, False)
    within = torch.arange(stacked.features.shape[1]) < stacked.lengths.unsqueeze(1)
    return stacked.features[within]


@torch.no_grad()
def sample_paths(
    model: Forecaster,
    windows: Sequence[Window],
    spec: SeriesSpec,
    settings: ForecastSettings,
    seed: int = 0,
) -> Array:
    """Ancestral samples (windows, samples, horizon) of what follows, in the series' own units.

    By the random numbers of a served model, which are those of (seed, series, sample, step).
    """
    each = max(1, _ROWS // settings.samples)
    return np.concatenate(
        [_paths(model, part, spec, settings, seed) for part in _parts(windows, each)]
    )


def _uniforms(keys: Sequence[int], samples: int, horizon: int) -> Tensor:
    """(keys * samples, horizon)"""
    blocks = range(-(-horizon // BLOCK))
    rows = [
        np.concatenate([uniform_block(key, sample, block)[:, 0] for block in blocks])[:horizon]
        for key in keys
        for sample in range(samples)
    ]
    return torch.from_numpy(np.stack(rows))


def _paths(
    model: Forecaster,
    windows: Sequence[Window],
    spec: SeriesSpec,
    settings: ForecastSettings,
    seed: int,
) -> Array:
    encoded = [encode_window(w, spec, settings.context, settings.horizon)[0] for w in windows]
    batch = stack_windows(windows, spec, settings.context, settings.horizon, True)
    keys = [key_of(seed, series.digest) for series in encoded]
    uniforms = _uniforms(keys, settings.samples, settings.horizon)
    state = model.first_state(batch.log_scale)
    past = batch.lengths - settings.horizon
    longest = int(past.max())
    _, state = model(batch.series[:, :longest], batch.features[:, :longest], past, state)
    state = tuple(part.repeat_interleave(settings.samples, dim=0) for part in state)
    value = torch.tensor([e.last for e in encoded]).repeat_interleave(settings.samples)
    observed = torch.tensor([float(e.observed) for e in encoded]).repeat_interleave(
        settings.samples
    )
    future = torch.from_numpy(np.stack([e.future for e in encoded])).repeat_interleave(
        settings.samples, dim=0
    )
    drawn = []
    for step in range(settings.horizon):
        parameters, state = model.step(value, observed, future[:, step], state)
        value = model.draw(parameters, uniforms[:, step], state[0])
        observed = torch.ones_like(value)
        drawn.append(value)
    paths = torch.stack(drawn, dim=1).double().numpy()
    paths = paths.reshape(len(windows), settings.samples, settings.horizon)
    own: Array = paths * np.array([e.scale for e in encoded])[:, None, None]
    return np.round(own) if spec.is_count else own


@dataclass(frozen=True)
class ForecastScores:
    """Of each window (windows,): CRPS and absolute error summed over its values, both as they are
    and in units of its series' naive error, its sMAPE in percent, and how many of its values lie in
    the 80 % interval. size: of its absolute values, summed; values: how many.
    """

    crps: Array
    error: Array
    scaled_crps: Array
    scaled_error: Array
    smape: Array
    covered: Array
    size: Array
    values: Array


def score_samples(windows: Sequence[Window], paths: Array, season: int) -> ForecastScores:
    """paths (windows, samples, horizon). The point forecast is the median."""
    horizon = paths.shape[2]
    values = np.stack([w.series.values[w.origin : w.origin + horizon] for w in windows])
    return _scores(
        windows, values, crps(paths, values), np.median(paths, axis=1), is_covered(paths, values),
        season,
    )  # fmt: skip


def score_points(windows: Sequence[Window], forecasts: Array, season: int) -> ForecastScores:
    """forecasts (windows, horizon), as distributions of one value."""
    horizon = forecasts.shape[1]
    values = np.stack([w.series.values[w.origin : w.origin + horizon] for w in windows])
    nothing = np.zeros_like(values, dtype=bool)
    return _scores(windows, values, np.abs(forecasts - values), forecasts, nothing, season)


def _scores(
    windows: Sequence[Window],
    values: Array,
    ranked: Array,
    points: Array,
    covered: Array,
    season: int,
) -> ForecastScores:
    there = ~np.isnan(values)
    errors = np.abs(points - values)
    scale = np.array([naive_error(w.series.values[: w.origin], season) for w in windows])
    return ForecastScores(
        crps=np.nansum(ranked, axis=1),
        error=np.nansum(errors, axis=1),
        scaled_crps=np.nansum(ranked, axis=1) / scale,
        scaled_error=np.nansum(errors, axis=1) / scale,
        smape=np.nanmean(
            np.where(there, smape(points, np.where(there, values, 1.0)), np.nan), axis=1
        ),
        covered=(covered & there).sum(axis=1),
        size=np.nansum(np.abs(values), axis=1),
        values=there.sum(axis=1),
    )


def score_measurements(scores: ForecastScores, groups: str) -> list[Measurement]:
    """In the order of MEASURES; groups: what each forecast is one of, in the plural."""
    count, ones = len(scores.values), np.ones(len(scores.values))
    return [
        ratio(scores.crps, scores.size, count, groups, scale=100),
        ratio(scores.smape, ones, count, groups),
        ratio(scores.scaled_error, scores.values, count, groups),
        ratio(scores.covered, scores.values, count, groups, scale=100),
    ]


def question_of(window: Window, horizon: int, spec: SeriesSpec) -> SeriesQuestion:
    """What a served model is asked for the forecast of a window."""
    series, origin = window.series, window.origin
    beside = (
        {}
        if series.covariates is None
        else dict(
            zip(spec.covariates, series.covariates[: origin + horizon].T.tolist(), strict=True)
        )
    )
    return SeriesQuestion(
        tuple(series.values[:origin].tolist()),
        horizon,
        "" if series.start is None else str(series.start),
        {name: tuple(values) for name, values in beside.items()},
    )


def window_of(question: SeriesQuestion) -> Window:
    """The forecast that a question asks for."""
    values = np.array([*question.values, *[np.nan] * question.horizon])
    covariates = np.array(list(question.covariates.values())).T if question.covariates else None
    start = parse_time(question.start) if question.start else None
    return Window(Series("", values, start, covariates), len(question.values))


def naive_forecasts(windows: Sequence[Window], horizon: int, season: int) -> Array:
    """(windows, horizon) of each series' last season."""
    return np.stack([seasonal_naive(w.series.values[: w.origin], horizon, season) for w in windows])


def floor_forecasts(
    questions: Sequence[SeriesQuestion], season: int, samples: int = SAMPLES
) -> dict[str, list[Array]]:
    """What is forecast without a network: by name (samples, horizon) of each question, of a point
    one sample. ETS is there where statsmodels is installed.
    """
    pasts = [np.array(question.values) for question in questions]
    naive = [
        seasonal_naive(past, question.horizon, season)[None]
        for past, question in zip(pasts, questions, strict=True)
    ]
    found = {"the last season again": naive}
    if has_ets():
        fitted: dict[tuple[float, ...], Smoothing] = {}  # several horizons of one past
        smoothed = []
        for past, question in zip(pasts, questions, strict=True):
            if question.values not in fitted:
                fitted[question.values] = Smoothing(fill_missing(past, season), season)
            smoothed.append(fitted[question.values].samples(samples, question.horizon))
        found["ETS"] = smoothed
    return found


def _parts(windows: Sequence[Window], size: int) -> Iterator[Sequence[Window]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]
