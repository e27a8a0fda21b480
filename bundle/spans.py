"""Labels that mark spans, in BIO: which may follow which, and the likeliest sequence of them.

``B-X`` begins a span of the kind X, ``I-X`` goes on with one, ``O`` is outside (Ramshaw and Marcus
1995, as CoNLL-2002 has it). An ``I-X`` is legal only after ``B-X`` or ``I-X``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"

# (kind, first token, the token after its last one)
Span = tuple[str, int, int]

_NEVER = -1e30  # of a transition; the sum of a text of these is finite in float64
_LEAST = 1e-30  # of a probability whose logarithm is taken


def is_bio(labels: Sequence[str]) -> bool:
    """Whether labels are of BIO: all of its form, and each ``I-X`` with a ``B-X``."""
    begins = {label[2:] for label in labels if label.startswith("B-")}
    insides = {label[2:] for label in labels if label.startswith("I-")}
    others = [label for label in labels if label[:2] not in ("B-", "I-") and label != OUTSIDE]
    return bool(begins) and insides <= begins and not others


def is_legal(before: str, label: str) -> bool:
    """before: the label of the token before, empty at the start."""
    return not label.startswith("I-") or before in (label, f"B-{label[2:]}")


def spans_of(labels: Sequence[str]) -> list[Span]:
    """An ``I-X`` that goes on with nothing begins a span, as conlleval counts it."""
    spans: list[Span] = []
    begin, kind = 0, ""
    for place, label in enumerate((*labels, OUTSIDE)):
        if kind and not (label.startswith("I-") and label[2:] == kind):
            spans.append((kind, begin, place))
            kind = ""
        if label != OUTSIDE and not kind:
            begin, kind = place, label[2:]
    return spans


class LegalPaths:
    """The likeliest legal sequences of ``labels``, which is_bio() holds for."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.start = np.array([0.0 if is_legal("", label) else _NEVER for label in labels])
        # (label before, label)
        self.between = np.array(
            [[0.0 if is_legal(a, b) else _NEVER for b in labels] for a in labels]
        )

    def best(self, probabilities: NDArray[Any]) -> NDArray[np.int64]:
        """probabilities (tokens, labels) → a label's number for each token (Viterbi 1967)"""
        scores = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
        total = self.start + scores[0]
        came_from = np.zeros(scores.shape, np.int64)
        for place in range(1, len(scores)):
            ways = total[:, None] + self.between
            came_from[place] = ways.argmax(axis=0)
            total = ways.max(axis=0) + scores[place]
        path = np.zeros(len(scores), np.int64)
        path[-1] = total.argmax()
        for place in range(len(scores) - 1, 0, -1):
            path[place - 1] = came_from[place, path[place]]
        return path
