"""What a forecaster reads: a series in units of its own scale, beside the features of each step.

Training and the service make a model's inputs here, so that they cannot differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.rng import digest_of
from bundle.time_features import Frequency, parse_time

Array = NDArray[Any]

# The heads: what the next value's distribution is.
GAUSSIAN, STUDENT_T, NEGATIVE_BINOMIAL = "gaussian", "student-t", "negative-binomial"
DISTRIBUTIONS = (GAUSSIAN, STUDENT_T, NEGATIVE_BINOMIAL)

# Columns of what is read of a step beside its features: the value before it, and whether there is
# one.
VALUE, OBSERVED = 0, 1


@dataclass(frozen=True)
class SeriesSpec:
    """The series that a forecaster knows, as its manifest says it.

    frequency: as ``bundle/time_features.py`` has them. distribution: of DISTRIBUTIONS; of counts, a
    value is a whole number from 0 on. covariates: names, with units, of what is known of every
    step, past and to come, in their order. calendar: whether it reads features of timestamps.
    least_context: values that a series has at least.
    """

    frequency: str
    distribution: str
    covariates: tuple[str, ...]
    calendar: bool
    least_context: int

    @property
    def is_count(self) -> bool:
        return self.distribution == NEGATIVE_BINOMIAL

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what is read of each step beside the value before it."""
        return (*Frequency(self.frequency).feature_names(self.calendar), *self.covariates)

    @property
    def features_size(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class EncodedSeries:
    """A series as a model reads it, from its first value to the last step to come.

    scale: of its values. context: (values, 2 + features) float32, of each past step the value
    before it in units of the scale, whether there was one, and the step's features. last: the
    value that the first step to come reads, observed: whether it is there. future: (horizon,
    features) float32.
    """

    scale: float
    context: Array
    last: float
    observed: bool
    future: Array

    @property
    def digest(self) -> int:
        """Of all that is read of its past, for the random numbers of its forecast."""
        past = (self.context.ravel(), (self.last, self.observed, self.scale))
        return digest_of(np.concatenate(past))


def scale_of(values: Array) -> float:
    """The mean of the absolute values, NaN left out; 1 where all are zero or none is there.

    Salinas et al. 2020, arXiv:1704.04110, section 3.3. Summed exactly, so that no order matters.
    """
    there = np.abs(values[~np.isnan(values)])
    mean = math.fsum(there.tolist()) / len(there) if len(there) else 0.0
    return mean if mean > 0 else 1.0


def encode_series(
    spec: SeriesSpec,
    values: Array,
    start: np.datetime64 | None,
    covariates: Array,
    horizon: int,
    first: int = 0,
) -> EncodedSeries:
    """values (time,) float64, NaN where one is missing; covariates (time + horizon, covariates).

    start: of the series; None for a model that reads no calendar. first: number of the first
    value in it. Raises TimeInvalid for steps beyond the calendar.
    """
    scale = scale_of(values)
    observed = ~np.isnan(values)
    scaled = np.where(observed, values, 0.0) / scale
    count = len(values)
    frequency = Frequency(spec.frequency)
    # Steps count from the first value that is read, which is all that a caller may have.
    ages = frequency.features(None, 0, count + horizon)
    columns = [ages]
    if spec.calendar:
        assert start is not None, "a model that reads a calendar is given a start"
        columns.append(frequency.features(start, first, count + horizon)[:, 1:])
    columns.append(covariates)
    features = np.concatenate(columns, axis=1).astype(np.float32)
    before = np.zeros((count, 2), np.float32)
    before[1:, VALUE] = scaled[:-1]
    before[1:, OBSERVED] = observed[:-1]
    return EncodedSeries(
        scale,
        np.concatenate((before, features[:count]), axis=1),
        float(np.float32(scaled[-1])),
        bool(observed[-1]),
        features[count:],
    )


__all__ = [
    "DISTRIBUTIONS",
    "GAUSSIAN",
    "NEGATIVE_BINOMIAL",
    "STUDENT_T",
    "EncodedSeries",
    "SeriesSpec",
    "encode_series",
    "parse_time",
    "scale_of",
]
