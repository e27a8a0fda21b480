"""What a word costs as a one-hot vector and as a row of the embedding: the same numbers.

The lecture's word i of a vocabulary of n is a vector of n numbers, 1 at i and 0 elsewhere. Its
product with the embedding picks row i, so models look the row up instead.
"""

from __future__ import annotations

from dataclasses import dataclass

_FLOAT_BYTES = 4  # float32
_ID_BYTES = 8  # int64


@dataclass(frozen=True)
class Cost:
    """Of one word's way to its embedding.

    word_bytes: of what stands for the word. read_bytes: of the embedding that is read.
    multiplications: of float32 numbers.
    """

    word_bytes: int
    read_bytes: int
    multiplications: int


def cost_of_product(words: int, embedding_size: int) -> Cost:
    """A vector of ``words`` numbers times the whole matrix (words, embedding_size)."""
    numbers = words * embedding_size
    return Cost(words * _FLOAT_BYTES, numbers * _FLOAT_BYTES, numbers)


def cost_of_lookup(embedding_size: int) -> Cost:
    """An id and the row it stands for: nothing grows with the vocabulary, nothing is multiplied."""
    return Cost(_ID_BYTES, embedding_size * _FLOAT_BYTES, 0)
