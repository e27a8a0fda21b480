"""The answer of the most similar training row: of texts by short runs of characters, of vectors by
their distance."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from training.floors.naive_bayes import character_features

MOST_CANDIDATES = 50_000  # training rows that are looked among


class NearestText:
    """By the cosine of runs of characters, weighted by how rare they are (Sparck Jones 1972)."""

    def __init__(self, texts: Sequence[str]) -> None:
        texts = texts[:MOST_CANDIDATES]
        self.features = [character_features(text.lower()) for text in texts]
        counts = Counter(feature for found in self.features for feature in found)
        self.weight = {f: math.log(1 + len(texts) / count) for f, count in counts.items()}
        self.rows: dict[str, list[int]] = defaultdict(list)
        for number, found in enumerate(self.features):
            for feature in found:
                self.rows[feature].append(number)
        self.lengths = [math.sqrt(self._square(found)) for found in self.features]

    def nearest(self, text: str) -> int:
        """The number of the most similar text; 0 where none has anything in common."""
        scores: dict[int, float] = defaultdict(float)
        found = character_features(text.lower())
        # Runs that half of all texts hold say nothing, and cost most of the time.
        rare = [f for f in found if f in self.rows and len(self.rows[f]) * 2 <= len(self.features)]
        for feature in rare:
            for number in self.rows[feature]:
                scores[number] += self.weight[feature] ** 2
        return max(scores, key=lambda n: (scores[n] / self.lengths[n], -n), default=0)

    def _square(self, features: set[str]) -> float:
        return sum(self.weight[feature] ** 2 for feature in features) or 1.0


def nearest_vectors(
    vectors: Sequence[Sequence[float]], questions: Sequence[Sequence[float]]
) -> list[int]:
    """The number of the vector nearest to each question, each value in its own deviations."""
    known, asked = np.asarray(vectors, float), np.asarray(questions, float)
    spread = known.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    known, asked = known / scale, asked / scale
    return [int(np.square(known - row).sum(axis=1).argmin()) for row in asked]
