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
        scores = self.scores(features)
        return sorted(scores, key=lambda label: (-scores[label], label))

    def scores(
        self, features: set[str], left_out: Sequence[tuple[set[str], str]] = ()
    ) -> dict[str, float]:
        """log p(label, features) of every label, had it never learnt those ``left_out``: features
        and label of each."""
        examples = self.labels.total() - len(left_out)
        return {
            label: self._score(label, features, [f for f, its in left_out if its == label])
            - math.log(examples)
            for label in self.labels
        }

    def _score(self, label: str, features: set[str], without: Sequence[set[str]]) -> float:
        counts = self.counts[label]
        total = self.totals[label] + self.known - sum(map(len, without))
        seen = (counts[f] - sum(f in other for other in without) + 1 for f in features)
        # A label that is left with no example counts as one of one.
        prior = max(1, self.labels[label] - len(without))
        # The exact sum: features are a set, which has another order in each process.
        found = math.fsum(map(math.log, seen))
        return math.log(prior) + found - len(features) * math.log(total)
