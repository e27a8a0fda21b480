"""Which hidden unit of a character model follows what in the text that it reads.

A unit is chosen on one part of the text and scored on another: among a thousand units, one
follows anything well on the characters that it was chosen by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# Each covers what its feature is of; those of a place cover the whole text.
_SPEAKER = re.compile(r"(?:\A|(?<=\n\n))[^\n:]+:(?=\n)")
_LINE = re.compile(r"[^\n]*\n?")
_LAST_OF_LINE = re.compile(r"[\s\S](?=\n)")
_CLAUSE = re.compile(r"[^,;:.!?]*[,;:.!?]*")
_WORD = re.compile(r"[A-Za-z']+")
_SENTENCE_END = re.compile(r"[.!?]+\s*")
_COMMA_CLAUSE = re.compile(r",[^,;:.!?]*")


def areas_under_roc(activity: Floats, is_so: NDArray[Any]) -> Floats:
    """The share of pairs, one character that is so and one that is not, that each unit ranks.

    activity: (characters, units), is_so: (characters,) bool, not all alike. Returns (units,);
    equal outputs count as half a pair.
    """
    areas = []
    for output in activity.T:
        below = np.sort(output[~is_so])
        left, right = (np.searchsorted(below, output[is_so], side) for side in ("left", "right"))
        areas.append((left + right).mean() / 2 / len(below))
    return np.array(areas)


def correlations(activity: Floats, quantity: NDArray[Any]) -> Floats:
    """Pearson's, of each unit (characters, units) with a quantity (characters,): (units,)."""
    centred, wanted = activity - activity.mean(axis=0), quantity - quantity.mean()
    norms = np.linalg.norm(centred, axis=0) * np.linalg.norm(wanted)
    made: Floats = centred.T @ wanted / np.maximum(norms, 1e-12)
    return made


@dataclass(frozen=True)
class Score:
    """How well units follow something.

    of: activity (characters, units), what was measured (characters,) → (units,). no_skill: of a
    unit that knows nothing of it. directions: of units above no_skill and of those below, which
    follow as well.
    """

    name: str
    of: Callable[[Floats, NDArray[Any]], Floats]
    no_skill: float
    directions: tuple[str, str]


AREA = Score("area under the ROC curve", areas_under_roc, 0.5, ("high", "low"))
CORRELATION = Score("correlation", correlations, 0.0, ("rising", "falling"))


@dataclass(frozen=True)
class Feature:
    """Something of each character of a text that a unit may follow.

    measure: text → (characters,), bool where it is so or not, float where it is a quantity.
    """

    name: str
    measure: Callable[[str], NDArray[Any]]
    score: Score


def _inside(name: str, pattern: re.Pattern[str]) -> Feature:
    """Whether a character lies in a match of ``pattern``."""

    def measure(text: str) -> NDArray[Any]:
        inside = np.zeros(len(text), bool)
        for match in pattern.finditer(text):
            inside[match.start() : match.end()] = True
        return inside

    return Feature(name, measure, AREA)


def _place(name: str, pattern: re.Pattern[str]) -> Feature:
    """How many characters of its match stand before a character."""

    def measure(text: str) -> NDArray[Any]:
        lengths = [len(match[0]) for match in pattern.finditer(text)]
        return np.concatenate([np.arange(length, dtype=float) for length in lengths])

    return Feature(name, measure, CORRELATION)


SPEAKER = _inside("inside a speaker's name", _SPEAKER)
FEATURES = (
    SPEAKER,
    _place("place in the line", _LINE),
    _inside("last character of a line", _LAST_OF_LINE),
    _place("place in the clause", _CLAUSE),
    _inside("inside a word", _WORD),
    _inside("after a sentence's end", _SENTENCE_END),
    _inside("in a clause after a comma", _COMMA_CLAUSE),
)


@dataclass(frozen=True)
class Follower:
    """The unit that follows a feature best.

    unit: its column of the activity. chosen_by: its score on the part of the text by which it was
    chosen. score: that on the other part.
    """

    feature: Feature
    unit: int
    chosen_by: float
    score: float

    @property
    def direction(self) -> str:
        above, below = self.feature.score.directions
        return above if self.chosen_by > self.feature.score.no_skill else below


def find_followers(
    text: str, activity: Floats, features: Sequence[Feature] = FEATURES
) -> list[Follower]:
    """Of each feature the unit that follows it best on the text's first half.

    activity: (characters, units), after each character of ``text``. A feature that does not vary
    on both halves has no follower.
    """
    middle = len(text) // 2
    followers = []
    for feature in features:
        chosen, scored = np.split(feature.measure(text), [middle])
        if len(set(chosen)) > 1 and len(set(scored)) > 1:
            scores = feature.score.of(activity[:middle], chosen)
            unit = int(np.abs(scores - feature.score.no_skill).argmax())
            (score,) = feature.score.of(activity[middle:, unit : unit + 1], scored)
            followers.append(Follower(feature, unit, float(scores[unit]), float(score)))
    return followers
