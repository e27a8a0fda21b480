"""What a count of the last few tokens gives the next one: interpolated n-grams.

Witten and Bell 1991: an order gives the order below as much as it has seen different tokens.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

Context = tuple[int, ...]


class NGram:
    """order: tokens of an n-gram, the next one among them. vocabulary: ids that there are."""

    def __init__(self, texts: Sequence[Sequence[int]], order: int, vocabulary: int) -> None:
        self.order = order
        self.vocabulary = vocabulary
        self.counts: dict[Context, Counter[int]] = defaultdict(Counter)
        for ids in texts:
            for at, token in enumerate(ids):
                for before in range(min(at, order - 1) + 1):
                    self.counts[tuple(ids[at - before : at])][token] += 1
        self.totals = {context: counts.total() for context, counts in self.counts.items()}

    def nats(self, ids: Sequence[int], read: int) -> list[float]:
        """-log p of each token but the first ``read``, which are only read."""
        return [-math.log(self._probability(ids, at)) for at in range(read, len(ids))]

    def _probability(self, ids: Sequence[int], at: int) -> float:
        probability = 1 / self.vocabulary
        for before in range(min(at, self.order - 1) + 1):
            context = tuple(ids[at - before : at])
            counts = self.counts.get(context)
            if counts is None:
                break
            different = len(counts)
            over = counts[ids[at]] + different * probability
            probability = over / (self.totals[context] + different)
        return probability
