"""Which figures meet the goals of a recipe."""

from dataclasses import replace
from pathlib import Path

import pytest

from bundle.store import read_bundle
from evaluation.goals import goals_table, missed
from evaluation.results import Found
from training.config import Goal, models, recipe_of
from training.held_out import FigureName
from training.measurements import Measurement

ROOT = Path(__file__).parents[2]
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


SEEDS = Goal("accuracy", 97.5, seeds=(98.0, 97.0, 96.0))


@pytest.mark.parametrize(
    ("value", "goal", "is_missed"),
    [
        (98.0, SEEDS, True),
        (97.0, replace(SEEDS, bar=97), False),
        (98.0, replace(SEEDS, is_error=True), False),
    ],
)
def test_a_goal_of_a_mean_is_met_by_the_mean_alone(value, goal, is_missed):
    goals = {"vowels": [goal]}
    evaluated = {"vowels": [measured("accuracy", value, "%", "whole sequences")]}
    assert bool(missed(evaluated, goals)) is is_missed
    assert ("missed" in goals_table(evaluated, goals)) is is_missed


def test_a_goal_of_a_mean_says_so_beside_what_is_served():
    evaluated = {"vowels": [measured("accuracy", 98.0, "%", "whole sequences")]}
    table = goals_table(evaluated, {"vowels": [SEEDS]})
    assert "| ≥ 97.5 in the mean of 3 seeds | **98.00, in the mean 97.00, missed** |" in table
    assert missed(evaluated, {"vowels": [SEEDS]}) == [
        "vowels: accuracy is 98.00, in the mean 97.00, the goal is ≥ 97.5 in the mean of 3 seeds"
    ]


def test_the_seed_that_is_served_is_one_of_a_goals_seeds():
    """A recipe's seeds are figures of the split: the bundle's own is the first of them."""
    for model in ("vowels", "vowels-online"):
        (goal,) = GOALS[model]
        first = read_bundle(ROOT / "models" / model / "1").manifest.figures[0]
        assert (first.name, round(first.value, 2)) == (goal.figure, goal.seeds[0])


def test_a_miss_is_said_in_a_sentence():
    split = "the last tenth of the nine plays"
    evaluated = {"prose": [measured("loss", 1.5, "nats a character", split)]}
    assert missed(evaluated, GOALS) == ["prose: loss is 1.5000, the goal is ≤ 1.395"]
