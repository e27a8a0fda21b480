"""Which figures meet the goals of a recipe."""

import pytest

from evaluation.goals import goals_table, missed
from evaluation.results import Found
from training.config import models, recipe_of
from training.held_out import FigureName
from training.measurements import Measurement

GOALS = {model: recipe_of(model).goals for model in models()}


def measured(name, value, unit, split):
    return Found(FigureName(name, unit, split), Measurement(value, 10, value, value, "none"))


@pytest.mark.parametrize(
    ("model", "name", "value", "is_missed"),
    [
        ("pos", "accuracy", 95.5, False),
        ("pos", "accuracy", 95.49, True),
        ("g2p", "word error rate", 24.5, False),
        ("g2p", "word error rate", 24.51, True),
    ],
)
def test_a_goal_is_met_from_its_bar_on(model, name, value, is_missed):
    split = GOALS[model][0].split
    evaluated = {model: [measured(name, value, "%", f"{split} of something")]}
    sentence = f"{model}: {name} is {value:.2f}, the goal is"
    assert any(said.startswith(sentence) for said in missed(evaluated, GOALS)) is is_missed
    assert (f"**{value:.2f}, missed**" in goals_table(evaluated, GOALS)) is is_missed


def test_a_goal_concerns_the_split_it_names_alone():
    other, own = (
        measured("accuracy", value, "%", split)
        for value, split in ((10.0, "words of a list"), (97.0, "every tenth sentence"))
    )
    assert missed({"pos": [other, own]}, GOALS) == []
    assert "10.00" not in goals_table({"pos": [other, own]}, GOALS)


def test_a_goal_whose_figure_is_not_there_is_not_met():
    evaluated = {"pos": [measured("accuracy", 99.0, "%", "words of a list")]}
    assert missed(evaluated, GOALS) == ["pos: accuracy is not measured, the goal is ≥ 95.5"]
    assert "**not measured, missed**" in goals_table(evaluated, GOALS)


def test_a_miss_is_said_in_a_sentence():
    split = "the last tenth of the nine plays"
    evaluated = {"prose": [measured("loss", 1.5, "nats a character", split)]}
    assert missed(evaluated, GOALS) == ["prose: loss is 1.5000, the goal is ≤ 1.43"]
