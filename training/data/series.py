"""Series in time, cut into windows: values that are read, and those after them to be forecast."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.series import EncodedSeries, SeriesSpec, encode_series

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Series:
    """values (time,) float64, NaN where one is missing. covariates (time, covariates). start: of
    the first value, None where nobody knows."""

    name: str
    values: Array
    start: np.datetime64 | None = None
    covariates: Array | None = None

    def __len__(self) -> int:
        return len(self.values)

    def before(self, end: int) -> Series:
        """The first ``end`` values alone."""
        covariates = None if self.covariates is None else self.covariates[:end]
        return Series(self.name, self.values[:end], self.start, covariates)


@dataclass(frozen=True)
class Window:
    """A forecast from ``origin`` on: the value of that number in ``series`` is its first."""

    series: Series
    origin: int


class SeriesBatch(NamedTuple):
    """Windows side by side, for teacher forcing.

    series (batch, time, 2), features (batch, time, features), targets (batch, time) in units of
    each series' scale. lengths (batch,) steps of each. counts (batch, time) 1.0 where a target is
    there and its step counts. log_scale (batch,).
    """

    series: Tensor
    features: Tensor
    targets: Tensor
    lengths: Tensor
    counts: Tensor
    log_scale: Tensor


def encode_window(
    window: Window, spec: SeriesSpec, context: int, horizon: int
) -> tuple[EncodedSeries, Array]:
    """What a served model would be given at the window's origin, and the values that follow, NaN
    where the series has no more."""
    series, origin = window.series, window.origin
    first = max(0, origin - context)
    covariates = np.zeros((origin - first + horizon, len(spec.covariates)))
    if series.covariates is not None:
        given = series.covariates[first : origin + horizon]
        covariates[: len(given)] = given
    encoded = encode_series(
        spec, series.values[first:origin], series.start, covariates, horizon, first
    )
    future = np.full(horizon, np.nan)
    found = series.values[origin : origin + horizon]
    future[: len(found)] = found
    return encoded, future


def stack_windows(
    windows: Iterable[Window], spec: SeriesSpec, context: int, horizon: int, only_future: bool
) -> SeriesBatch:
    """only_future: whether steps within the context do not count."""
    rows = [_forced(*encode_window(w, spec, context, horizon), only_future) for w in windows]
    time = max(len(targets) for _, targets, _, _ in rows)
    size = 2 + spec.features_size
    inputs = np.zeros((len(rows), time, size), np.float32)
    targets = np.zeros((len(rows), time), np.float32)
    counts = np.zeros((len(rows), time), np.float32)
    for number, (read, wanted, counted, _) in enumerate(rows):
        inputs[number, : len(read)] = read
        targets[number, : len(read)] = wanted
        counts[number, : len(read)] = counted
    tensors = torch.from_numpy(inputs)
    return SeriesBatch(
        tensors[:, :, :2],
        tensors[:, :, 2:],
        torch.from_numpy(targets),
        torch.tensor([len(wanted) for _, wanted, _, _ in rows]),
        torch.from_numpy(counts),
        torch.tensor([np.log(scale) for _, _, _, scale in rows], dtype=torch.float32),
    )


def _forced(
    encoded: EncodedSeries, future: Array, only_future: bool
) -> tuple[Array, Array, Array, float]:
    """Inputs, targets, which of them count, and the scale, of one window whose future is read."""
    context, horizon = len(encoded.context), len(future)
    scaled = future / encoded.scale
    read = np.zeros((horizon, 2), np.float32)
    read[0] = encoded.last, encoded.observed
    read[1:, 1] = ~np.isnan(scaled[:-1])
    read[1:, 0] = np.nan_to_num(scaled[:-1])
    inputs = np.concatenate(
        (encoded.context, np.concatenate((read, encoded.future), axis=1)), axis=0
    )
    # A step's own value is what the step after it reads.
    targets = np.append(inputs[1:, 0], np.nan_to_num(scaled[-1]))
    counts = np.append(inputs[1:, 1], np.float32(not np.isnan(scaled[-1])))
    # Nothing is known of a series before its first value.
    counts[: context if only_future else 1] = 0.0
    return inputs, targets, counts, encoded.scale


def draw_windows(
    series: Sequence[Series], least_context: int, count: int, choose: random.Random
) -> list[Window]:
    """``count`` windows of series drawn with equal probability, each at any origin that leaves a
    value to forecast, an earlier one as likely as a later one."""
    long_enough = [s for s in series if len(s) > least_context]
    if not long_enough:
        raise ValueError(f"no series has more than least_context ({least_context}) values")
    drawn = choose.choices(long_enough, k=count)
    return [Window(s, choose.randrange(least_context, len(s))) for s in drawn]


def rolling_windows(
    series: Sequence[Series], ends: Sequence[int], horizon: int, stride: int
) -> list[Window]:
    """Forecasts of what follows each series' first ``ends`` values, every ``stride`` values anew,
    as long as a whole horizon follows. Nothing behind an origin is read for it."""
    return [
        Window(s, origin)
        for s, end in zip(series, ends, strict=True)
        for origin in range(end, len(s) - horizon + 1, stride)
    ]
