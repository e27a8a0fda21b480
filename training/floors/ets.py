"""Exponential smoothing, fitted to each series by itself: statsmodels, where that is installed.

The state space models of Hyndman, Koehler, Snyder and Grose 2002
(doi:10.1016/S0169-2070(01)00110-8), without those whose forecasts have no finite variance: errors
add or multiply, a trend is none or damped, a season none, added, or multiplied where errors
multiply too.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ADD, MULTIPLY = "add", "mul"
# How errors and seasons act together.
_FORMS = ((ADD, None), (MULTIPLY, None), (ADD, ADD), (MULTIPLY, ADD), (MULTIPLY, MULTIPLY))


def has_ets() -> bool:
    return find_spec("statsmodels") is not None


class Smoothing:
    """The form with the least AICc, fitted to ``past`` (time,), without missing values.

    What is not above zero everywhere has no form that multiplies. Where a past is too short for
    a fit, and where it is one value all the time, that goes on.
    """

    def __init__(self, past: Array, season: int) -> None:
        self._last = float(past[-1])
        fits = [] if np.ptp(past) == 0 else _fits(past, season)
        self._best = min(fits, key=lambda fit: float(fit.aicc), default=None)

    def samples(self, count: int, horizon: int, seed: int = 0) -> Array:
        """(count, horizon) ways to go on."""
        if self._best is None:
            return np.full((count, horizon), self._last)
        drawn: Array = self._best.simulate(
            horizon, repetitions=count, anchor="end", random_state=seed
        ).T
        return drawn.reshape(count, horizon)


def _fits(past: Array, season: int) -> list[Any]:
    has_season = season > 1 and len(past) >= 2 * season + 3
    found = []
    # Of a fit that did not converge, whose AICc is larger, and of its own use of pandas. Imported
    # first, since the import sets filters of its own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = import_module("statsmodels.tsa.exponential_smoothing.ets").ETSModel
        warnings.simplefilter("ignore")
        for error, seasonal in _FORMS:
            if (error == MULTIPLY and not (past > 0).all()) or (seasonal and not has_season):
                continue
            for trend in (None, ADD):
                try:
                    fit = model(
                        past, error=error, trend=trend, damped_trend=trend is not None,
                        seasonal=seasonal, seasonal_periods=season if seasonal else None,
                        initialization_method="heuristic",
                    ).fit(disp=False)  # fmt: skip
                except ValueError:  # fewer values than its first season or trend takes
                    continue
                if np.isfinite(fit.aicc):
                    found.append(fit)
    return found
