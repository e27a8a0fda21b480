"""95 % intervals of measured figures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

_NORMAL = 1.959964  # of a standard normal distribution, 95 % lie within
ROUNDS = 1_000


def wilson(right: int, examples: int) -> Interval:
    """Of a share, where each example is right or wrong by itself (Wilson 1927)."""
    share, z2 = right / examples, _NORMAL**2
    middle = (share + z2 / (2 * examples)) / (1 + z2 / examples)
    half = _NORMAL * math.sqrt(share * (1 - share) / examples + z2 / (4 * examples**2))
    half /= 1 + z2 / examples
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_ratio(
    parts: NDArray[np.float64], wholes: NDArray[np.float64], seed: int = 0
) -> Interval:
    """Of sum(parts) / sum(wholes) over ROUNDS draws of as many groups, each drawn alike.

    parts, wholes: (groups,), a group being what hangs together: a sentence's words, say.
    """
    random = np.random.default_rng(seed)
    ratios = []
    for _ in range(ROUNDS):
        drawn = random.integers(0, len(parts), len(parts))
        ratios.append(parts[drawn].sum() / max(wholes[drawn].sum(), 1e-9))
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)
