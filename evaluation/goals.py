"""What each model was to reach on its held-out split, and what simpler or published ones reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.judged import Checked, digits_of
from study.text import table


@dataclass(frozen=True)
class Goal:
    """figure, split: the name of a figure, and how its split begins.

    bar: a value in the figure's unit. is_error: whether lower is better. beside: what to compare
    with, and where that is from.
    """

    figure: str
    split: str
    bar: float
    beside: str
    is_error: bool = False

    def concerns(self, checked: Checked) -> bool:
        claim = checked.claimed
        return claim.name == self.figure and claim.split.startswith(self.split)

    def is_met(self, value: float) -> bool:
        return value <= self.bar if self.is_error else value >= self.bar


_NEAREST = "the nearest food's name: "  # on these foods: tests/training/test_food.py
_BROWN = "each word's most frequent tag: 91.6 %"
GOALS: Mapping[str, tuple[Goal, ...]] = {
    "sentiment": (
        Goal(
            "accuracy",
            "held-out Rotten Tomatoes",
            80.5,
            "naive Bayes over word pairs 78.9 %; on other splits of this corpus a convolutional "
            "network with pretrained vectors 81.5 % (Kim 2014)",
        ),
        Goal("pairs right", "pairs made by rules", 80, "a bag of words: 0 %"),
        Goal("accuracy", "the lecture's", 100, "a bag of words: 50 % at most"),
    ),
    "g2p": (
        Goal("word error rate", "a tenth", 27, "Phonetisaurus 33.9 %, on a split of its own", True),
        Goal("phone error rate", "a tenth", 7, "", True),
    ),
    "prose": (
        Goal(
            "loss",
            "the last tenth",
            1.43,
            "a transformer of 10 million parameters 1.4697, taught the nine plays alone (nanoGPT, "
            "on an edition that agrees in 99.8 % of the lines)",
            True,
        ),
    ),
    "pos": (Goal("accuracy", "every tenth", 95.5, _BROWN),),
    "pos-online": (Goal("accuracy", "every tenth", 94.5, _BROWN),),
    "cloze": (
        Goal("top-1 accuracy", "", 38, "the words left and right, counted: 30.3 %"),
        Goal("top-5 accuracy", "", 60, "the words left and right, counted: 50.5 %"),
    ),
    "food": (
        Goal("first word right", "every tenth", 74.2, _NEAREST + "74.2 %, on these foods 75.0 %"),
        Goal("F1 of words", "every tenth", 0.573, _NEAREST + "0.573, on these foods 0.570"),
    ),
    "nationality": (
        Goal("P@1", "", 55, "name2nat's GRU 55.1 %, on a split of its own"),
        Goal("P@5", "", 86, "name2nat's GRU 86.8 %, on a split of its own"),
    ),
    "translate": (Goal("BLEU", "every tenth", 15, ""),),
}


def measured(
    evaluated: Mapping[str, Sequence[Checked]],
) -> list[tuple[str, Goal, Checked | None]]:
    """Every goal of the models with the first figure that it concerns; None: not measured."""
    found = []
    for name, figures in evaluated.items():
        known = [checked for checked in figures if checked.judged is not None]
        for goal in GOALS.get(name, ()):
            found.append((name, goal, next(filter(goal.concerns, known), None)))
    return found


def missed(evaluated: Mapping[str, Sequence[Checked]]) -> list[str]:
    """A sentence for each goal that is not met."""
    return [
        f"{name}: {goal.figure} is {_shown(checked)}, the goal is {_sign(goal)} {goal.bar:g}"
        for name, goal, checked in measured(evaluated)
        if not _is_met(goal, checked)
    ]


def goals_table(evaluated: Mapping[str, Sequence[Checked]]) -> str:
    rows = [
        (
            name,
            f"{goal.figure}, {checked.claimed.split if checked else goal.split}",
            f"{_sign(goal)} {goal.bar:g}",
            _shown(checked) if _is_met(goal, checked) else f"**{_shown(checked)}, missed**",
            goal.beside,
        )
        for name, goal, checked in measured(evaluated)
    ]
    return table(("model", "figure", "goal", "served", "to compare with"), rows)


def _is_met(goal: Goal, checked: Checked | None) -> bool:
    judged = checked.judged if checked else None
    return judged is not None and goal.is_met(judged.value)


def _sign(goal: Goal) -> str:
    return "≤" if goal.is_error else "≥"


def _shown(checked: Checked | None) -> str:
    if checked is None or checked.judged is None:
        return "not measured"
    return f"{checked.judged.value:.{digits_of(checked.claimed.unit)}f}"
