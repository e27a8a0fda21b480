"""The monthly forecaster's recipe on series by rule: what is learnt, held out and asked."""

import numpy as np
import pytest

from training.bundled import monthly
from training.bundled.monthly import TASK, CompetitionExample
from training.checkpoint import TrainedModel
from training.config import RECIPES, load_recipe
from training.data.competitions import M1, M3, TOURISM, Competition
from training.data.series import Series


def competition(horizon, lengths):
    series = [
        Series(
            f"N{n}", 50 + 10 * np.sin(2 * np.pi * np.arange(length) / 12) + np.arange(length) % 5
        )
        for n, length in enumerate(lengths)
    ]
    return Competition(series, [length - horizon for length in lengths])


@pytest.fixture
def read(monkeypatch):
    of = {
        M3: competition(18, [80, 70]),
        TOURISM: competition(24, [120]),
        M1: competition(18, [60]),
    }
    monkeypatch.setattr(monthly, "load_monthly", lambda name, data: of[name])
    recipe = load_recipe(RECIPES / "monthly.toml", quick=True)
    splits, _ = TASK.read(recipe)
    return recipe, splits


def trained_of(prepared):
    model = prepared.build(prepared.config)
    return model, TrainedModel(
        "monthly", "", {}, {}, {}, dict(prepared.limits), series=prepared.series
    )


def test_nothing_that_contestants_did_not_have_is_learnt(read):
    recipe, splits = read
    training = TASK.prepare(recipe, splits, 1).training
    assert [len(s) for s in training.validation] == [62, 52, 96]
    assert [len(s) for s in training.training] == [38, 28, 72], "without the horizon that validates"


def test_each_part_of_what_is_held_out_has_its_figures(read):
    recipe, splits = read
    prepared = TASK.prepare(recipe, splits, 1)
    model, trained = trained_of(prepared)
    held_out = TASK.held_out(splits.held_out, trained)
    assert [q.horizon for q in held_out.questions] == [
        *[18, 18, 12, 12, 12, 12],
        *[24, 12, 12, 12],
        *[18, 12, 12],
    ]
    assert [len(q.values) for q in held_out.questions[:4]] == [62, 52, 62, 68]
    assert len({figure.split for figure in held_out.figures}) == 6
    answers = TASK.answers(model.eval(), trained, held_out.questions)
    assert [answer.shape[1] for answer in answers] == [q.horizon for q in held_out.questions]
    measured = held_out.measure(answers)
    assert len(measured) == len(held_out.figures) == 24
    floors = TASK.floors(splits, trained, held_out.questions)
    assert len(held_out.measure(floors["the last season again"])) == 24


def test_an_example_says_which_competition_it_is_of(read):
    _, splits = read
    assert all(isinstance(example, CompetitionExample) for example in splits.train)
    assert [example.competition for example in splits.train] == [M3, M3, TOURISM]


def test_a_competition_that_is_held_out_whole_is_asked_and_not_learnt(read):
    recipe, splits = read
    assert [example.competition for example in splits.held_out] == [M3, M3, TOURISM, M1]
    assert all(example.competition != M1 for example in [*splits.train, *splits.validation])
    _, trained = trained_of(TASK.prepare(recipe, splits, 1))
    last = TASK.held_out(splits.held_out, trained).figures[-1]
    assert last.split == (
        "M1, monthly, which it did not learn from: 12 months from every 6th held-out value on"
    )
