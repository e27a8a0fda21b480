"""Labels of texts by their words and pairs of words, or by short runs of characters.

Multinomial naive Bayes with a smoothing of 1 over what a text holds, each feature once (Wang and
Manning 2012, section 2.1, whose bigrams make it hard to beat on short texts).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

LONGEST_RUN = 4  # characters


def word_features(symbols: Sequence[str]) -> set[str]:
    return {*symbols, *(f"{a} {b}" for a, b in pairwise(symbols))}


def character_features(symbols: Sequence[str]) -> set[str]:
    """Runs of up to LONGEST_RUN characters, the ends of the text marked."""
    text = f"^{''.join(symbols)}$"
    return {
        text[at : at + length]
        for length in range(1, LONGEST_RUN + 1)
        for at in range(len(text) - length + 1)
    }


class NaiveBayes:
    """Learnt from the features of texts and their labels."""

    def __init__(self, features: Sequence[set[str]], labels: Sequence[str]) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.labels = Counter(labels)
        for found, label in zip(features, labels, strict=True):
            self.counts[label].update(found)
        self.known = len(set().union(*features)) if features else 0
        self.totals = {label: self.counts[label].total() for label in self.labels}

    def ranked(self, features: set[str]) -> list[str]:
        """Every label, the likeliest first."""
        examples = self.labels.total()
        scores = {
            label: math.log(count / examples)
            + sum(
                math.log((self.counts[label][feature] + 1) / (self.totals[label] + self.known))
                for feature in features
            )
            for label, count in self.labels.items()
        }
        return sorted(scores, key=lambda label: (-scores[label], label))
