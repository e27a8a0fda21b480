"""Counter-based random numbers: a stream's draws depend on its key and position alone.

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"): the numbers at a position are a function of (key, sample, position). The key is the request's
seed mixed with a digest of what it reads, so that equal seeds give other numbers after another
input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 64  # positions made at once
_NUMBERS_PER_COUNTER = 4
_TO_UNIT = np.float32(2.0**-24)

Uniforms = NDArray[np.float32]


class UniformBlocks:
    """Makes blocks of uniform numbers, one after the other; not to be shared by threads.

    numbers: of each position, at most 4; those of one and of several have nothing to do with each
    other.
    """

    def __init__(self, numbers: int = 1) -> None:
        self._numbers = numbers
        self._words = 1 if numbers == 1 else _NUMBERS_PER_COUNTER
        self._generator = np.random.Philox(0)
        # Set anew for each block: a generator made anew asks the system for entropy first.
        self._state: Any = self._generator.state

    def block(self, key: int, sample: int, block: int) -> Uniforms:
        """(BLOCK, numbers) numbers in [0, 1) for the positions from ``block * BLOCK`` on.

        key: 0 … 2⁶⁴-1, see key_of(). sample: which of several continuations of one request.
        """
        words, state = self._words, self._state["state"]
        state["counter"][0] = block * (BLOCK * words // _NUMBERS_PER_COUNTER)
        state["key"][:] = key, sample
        self._generator.state = self._state
        top_bits = self._generator.random_raw(BLOCK * words) >> np.uint64(40)
        return top_bits.reshape(BLOCK, words)[:, : self._numbers].astype(np.float32) * _TO_UNIT


def uniform_block(key: int, sample: int, block: int, numbers: int = 1) -> Uniforms:
    """One block by itself, as UniformBlocks makes it."""
    return UniformBlocks(numbers).block(key, sample, block)


def digest_of(values: Sequence[Any] | NDArray[Any]) -> int:
    """0 … 2⁶⁴-1, of token ids, or of numbers (…), that a request reads."""
    array = np.asarray(values)
    array = array.astype("<i8" if np.issubdtype(array.dtype, np.integer) else "<f4")
    return int.from_bytes(hashlib.blake2b(array.tobytes(), digest_size=8).digest(), "little")


def key_of(seed: int, digest: int) -> int:
    """seed, digest: 0 … 2⁶⁴-1, of a request and of what it reads."""
    return seed ^ digest
