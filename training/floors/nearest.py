"""The answer of the most similar training row: of texts by short runs of characters, of vectors by
their distance."""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.floors.naive_bayes import character_features

MOST_CANDIDATES = 50_000  # training rows that are looked among


class NearestText:
    """By the cosine of runs of characters, weighted by how rare they are (Sparck Jones 1972).

    rows: the numbers of the texts that hold a feature, by feature; those of what half of all texts
    hold are left out: they say nothing, and cost most of the time.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        texts = texts[:MOST_CANDIDATES]
        found = [character_features(text.lower()) for text in texts]
        counts = Counter(feature for features in found for feature in features)
        self.weights = {
            feature: math.log(1 + len(texts) / count) ** 2
            for feature, count in counts.items()
            if 2 * count <= len(texts)
        }
        rows: dict[str, list[int]] = defaultdict(list)
        lengths = np.zeros(len(texts))
        for number, features in enumerate(found):
            for feature in features & self.weights.keys():
                rows[feature].append(number)
                lengths[number] += self.weights[feature]
        self.rows = {feature: np.array(numbers) for feature, numbers in rows.items()}
        self.lengths = np.sqrt(np.maximum(lengths, 1e-9))

    def nearest(self, text: str) -> int:
        """The number of the most similar text; 0 where none has anything in common."""
        known = [f for f in character_features(text.lower()) if f in self.rows]
        if not known:
            return 0
        rows = np.concatenate([self.rows[feature] for feature in known])
        weights = np.repeat(
            [self.weights[feature] for feature in known],
            [len(self.rows[feature]) for feature in known],
        )
        shared = np.bincount(rows, weights, len(self.lengths))
        return int((shared / self.lengths).argmax())


def nearest_vectors(
    vectors: Sequence[Sequence[float]], questions: Sequence[Sequence[float]]
) -> list[int]:
    """The number of the vector nearest to each question, each value in its own deviations; by the
    values that both know, where some are unknown (NaN)."""
    known, asked = np.asarray(vectors, float), np.asarray(questions, float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that nobody knows
        spread = np.nanstd(known, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    known, asked = known / scale, asked / scale
    return [int(_distances(known, row).argmin()) for row in asked]


def _distances(vectors: NDArray[Any], question: NDArray[Any]) -> NDArray[Any]:
    """(vectors,): the mean square over the values that both know; infinite where there are none"""
    squares = np.square(vectors - question)
    counts = (~np.isnan(squares)).sum(axis=1)
    sums = np.nansum(squares, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
