"""The draw of a forecaster's value in NumPy: what a step graph is checked against.

Written anew, in float64 and the other way round: not which value a uniform number draws, but which
share of the distribution lies below the value that was drawn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.series import GAUSSIAN, NEGATIVE_BINOMIAL, STUDENT_T
from training.models.heads import CELLS

Array = NDArray[Any]

_MIDDLE = (2 * np.arange(CELLS) + 1) / CELLS - 1


def draw_errors(
    distribution: str, parameters: Array, log_scale: Array, value: Array, uniform: Array
) -> Array:
    """How far, in probability, each value (batch,) lies from the one that ``uniform`` (batch,)
    draws of the distribution with these parameters (batch, parameters); 0 for the very value.

    Values are in units of their series' scale, as those of a graph.
    """
    rows = zip(
        parameters.astype(np.float64), log_scale.astype(np.float64), value.astype(np.float64),
        uniform.astype(np.float64), strict=True,
    )  # fmt: skip
    error = _ERRORS[distribution]
    return np.array([error(*row) for row in rows])


def _gaussian(parameters: Array, log_scale: float, value: float, uniform: float) -> float:
    deviation = (value - parameters[0]) / _positive(parameters[1])
    return abs(0.5 * math.erfc(-deviation / math.sqrt(2)) - uniform)


def _student_t(parameters: Array, log_scale: float, value: float, uniform: float) -> float:
    freedom = _squareplus(parameters[2]) + 2.0
    unit = _positive(parameters[1]) * math.sqrt(freedom)
    deviation = (value - parameters[0]) / unit
    # The number y of a deviation 2y / (1 - y²), and how many cells lie below it.
    y = deviation / (1 + math.sqrt(1 + deviation * deviation))
    cells = (y + 1) * CELLS / 2
    square = _MIDDLE**2
    weights = ((1 - square) / (1 + square)) ** (freedom - 1) / (1 + square)
    edges = np.append(0.0, weights.cumsum()) / weights.sum()
    below = float(np.interp(cells, np.arange(CELLS + 1), edges))
    return abs(below - uniform)


def _negative_binomial(parameters: Array, log_scale: float, value: float, uniform: float) -> float:
    count = round(value * math.exp(log_scale))
    mean = math.exp(parameters[0] + log_scale)
    shape = math.exp(parameters[1])
    log_success = math.log(mean / (mean + shape))
    log_failure = math.log(shape / (mean + shape))
    masses = np.array(
        [
            math.exp(
                math.lgamma(k + shape) - math.lgamma(shape) - math.lgamma(k + 1)
                + shape * log_failure + k * log_success
            )
            for k in range(CELLS)
        ]
    )  # fmt: skip
    edges = np.append(0.0, masses.cumsum()) / masses.sum()
    return max(float(edges[count]) - uniform, uniform - float(edges[count + 1]), 0.0)


def _positive(x: float) -> float:
    return _squareplus(x) + 1e-3


def _squareplus(x: float) -> float:
    return 0.5 * (x + math.sqrt(x * x + 4))


_ERRORS = {
    GAUSSIAN: _gaussian,
    STUDENT_T: _student_t,
    NEGATIVE_BINOMIAL: _negative_binomial,
}
