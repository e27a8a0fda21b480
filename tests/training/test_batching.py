import random
from itertools import pairwise

from training.batching import similar_lengths


def test_rows_are_batched_with_rows_of_their_length():
    """Every row once; no batch holds a length that lies between two of another batch."""
    rows = ["x" * (n % 7) for n in range(50)]
    batches = similar_lengths(rows, len, 8, random.Random(1))
    assert sorted(row for batch in batches for row in batch) == sorted(rows)
    assert max(map(len, batches)) == 8
    spans = sorted((min(map(len, batch)), max(map(len, batch))) for batch in batches)
    assert all(low[1] <= high[0] for low, high in pairwise(spans))


def test_an_epoch_has_an_order_of_its_own():
    rows = [str(number) for number in range(50)]
    first = similar_lengths(rows, len, 8, random.Random(1))
    assert first == similar_lengths(rows, len, 8, random.Random(1))
    assert first != similar_lengths(rows, len, 8, random.Random(2))
