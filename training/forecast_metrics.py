"""What forecasts are worth: CRPS, sMAPE, MASE and coverage; and the floors that need no network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Quantiles between which four of five values are to lie.
LOWER, UPPER = 0.1, 0.9


def crps(samples: Array, values: Array) -> Array:
    """Continuous ranked probability score: E|X - y| - E|X - X'| / 2, of samples (…, samples, time)
    and values (…, time) → (…, time), in the values' unit.

    Gneiting and Raftery 2007, doi:10.1198/016214506000001437, equation 21; the second mean is over
    pairs of different samples.
    """
    count = samples.shape[-2]
    ordered = np.sort(samples, axis=-2)
    ranks = 2.0 * np.arange(1, count + 1) - count - 1
    spread = np.einsum("...st,s->...t", ordered, ranks) / (count * (count - 1))
    found: Array = np.abs(ordered - values[..., None, :]).mean(axis=-2) - spread
    return found


def smape(forecast: Array, values: Array) -> Array:
    """|f - y| · 200 / (|f| + |y|) of each value, in percent; 0 where both are zero.

    Makridakis and Hibon 2000, doi:10.1016/S0169-2070(00)00057-1.
    """
    both = np.abs(forecast) + np.abs(values)
    found: Array = 200 * np.abs(forecast - values) / np.where(both > 0, both, 1.0)
    return found


def naive_error(past: Array, season: int) -> float:
    """The mean absolute difference of values a season apart, which MASE divides by; of neighbours
    where that is none or zero, and 1 where a series has but one value all the time."""
    for lag in (season, 1):
        differences = np.abs(past[lag:] - past[:-lag]) if len(past) > lag else np.array([])
        there = differences[~np.isnan(differences)]
        if len(there) and there.mean() > 0:
            return float(there.mean())
    return 1.0


def mase(forecast: Array, values: Array, past: Array, season: int) -> float:
    """Mean absolute scaled error (Hyndman and Koehler 2006,
    doi:10.1016/j.ijforecast.2006.03.001)."""
    return float(np.nanmean(np.abs(forecast - values)) / naive_error(past, season))


def is_covered(samples: Array, values: Array) -> Array:
    """samples (…, samples, time), values (…, time) → whether each lies in the 80 % interval"""
    lower, upper = np.quantile(samples, (LOWER, UPPER), axis=-2)
    found: Array = (lower <= values) & (values <= upper)
    return found


def seasonal_naive(past: Array, horizon: int, season: int) -> Array:
    """The last season again: (horizon,). In a past shorter than a season it is the last value."""
    if len(past) < season:
        season = 1
    last = fill_missing(past, season)[-season:]
    return np.array([last[step % season] for step in range(horizon)])


def fill_missing(past: Array, season: int) -> Array:
    """past (time,) with a missing value as the one a season before it, or as their mean where there
    is none."""
    filled = past.copy()
    for place in range(len(filled)):
        if np.isnan(filled[place]):
            filled[place] = filled[place - season] if place >= season else np.nanmean(past)
    return filled
