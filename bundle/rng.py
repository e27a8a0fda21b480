"""Counter-based random numbers: a stream's draws depend on its seed and position alone.

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"): the number at a position is a function of (seed, sample, position).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 64  # positions made at once
_NUMBERS_PER_COUNTER = 4
_TO_UNIT = np.float32(2.0**-24)

Uniforms = NDArray[np.float32]


def uniform_block(seed: int, sample: int, block: int) -> Uniforms:
    """(BLOCK,) numbers in [0, 1) for the positions from ``block * BLOCK`` on.

    seed: 0 … 2⁶⁴-1. sample: which of several continuations of one request.
    """
    counter = block * (BLOCK // _NUMBERS_PER_COUNTER)
    generator = np.random.Philox(key=np.array([seed, sample], np.uint64), counter=counter)
    top_bits = generator.random_raw(BLOCK) >> np.uint64(40)
    return top_bits.astype(np.float32) * _TO_UNIT
