"""A forecaster of a user's file: what is read, what is refused with its place, what is held out."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest

from bundle.series import NEGATIVE_BINOMIAL, STUDENT_T
from training.__main__ import main
from training.checkpoint import TrainedModel
from training.config import TASK_RECIPES, load_recipe
from training.readers import DataInvalid
from training.tasks import TASKS
from training.tasks.forecast import Forecast

TASK = Forecast()


def hours(count=240, skipped=(), empty=()):
    """A load with a day's rhythm, and a temperature."""
    lines = ["time,kw,temp"]
    for n in range(count):
        if n in skipped:
            continue
        time = datetime(2024, 3, 1) + timedelta(hours=n)
        kw = "" if n in empty else f"{20 + 5 * math.sin(2 * math.pi * n / 24):.3f}"
        lines.append(f"{time:%Y-%m-%dT%H:%M:%S},{kw},{n % 7}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def read(tmp_path):
    def examples(text, **data):
        path = tmp_path / "load.csv"
        path.write_text(text)
        recipe = load_recipe(TASK_RECIPES / "forecast.toml")
        for key, value in {"files": str(path), "targets": "kw", **data}.items():
            recipe = recipe.with_value(f"data.{key}", value)
        splits, facts = TASK.read(recipe)
        return recipe, splits, dict(facts)

    return examples


def test_a_column_becomes_a_series_with_its_covariates(read):
    _, splits, facts = read(hours(), covariates="temp")
    (example,) = splits.train
    assert len(example.series) == 240
    assert str(example.series.start) == "2024-03-01T00:00:00"
    assert (example.frequency, example.covariates) == ("h", ("temp",))
    assert example.series.covariates[:3, 0].tolist() == [0, 1, 2]
    assert facts["frequency"] == "h, a season of 24 steps"


def test_rows_that_are_not_there_are_missing_values(read):
    _, splits, _ = read(hours(skipped=(5, 6), empty=(9,)))
    values = splits.train[0].series.values
    assert np.flatnonzero(np.isnan(values)).tolist() == [5, 6, 9]


def test_a_column_may_say_whose_series_a_row_is_of(read):
    rows = [f"2024-{month:02},{shop},{month}" for month in range(1, 13) for shop in ("a", "b")]
    _, splits, _ = read("time,shop,kw\n" + "\n".join(rows) + "\n", series_column="shop")
    assert [example.series.name for example in splits.train] == ["a kw", "b kw"]
    assert splits.train[0].frequency == "M"


@pytest.mark.parametrize(
    ("dates", "frequency"),
    [
        (["2024-01", "2024-02", "2024-03"], "M"),
        (["2024-01-01", "2024-04-01", "2024-07-01"], "Q"),
        (["2022-01-01", "2023-01-01", "2024-01-01"], "Y"),
        (["2024-01-01", "2024-01-08", "2024-01-15"], "W"),
        (["2024-01-01", "2024-01-02", "2024-01-05"], "D"),
        (["2024-01-01T00:00", "2024-01-01T00:15", "2024-01-01T00:30"], "15min"),
        (["2024-01-01T00:00", "2024-01-01T02:00", "2024-01-01T06:00"], "2h"),
    ],
)
def test_the_frequency_is_the_shortest_step(read, dates, frequency):
    text = "time,kw\n" + "".join(f"{date},{n}\n" for n, date in enumerate(dates))
    assert read(text)[1].train[0].frequency == frequency


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("time,kw\nnoon,1\n", {}, "line 2, column 'time'.*'noon' is no timestamp"),
        ("time,kw\n2024-01,1\n2024-01,2\n", {}, "'2024-01' is there already, in line 2"),
        ("time,kw\n2024-01,one\n2024-02,2\n", {}, "line 2, column 'kw'.*'one' is no number"),
        ("time,kw\n2024-01,\n2024-02,\n", {}, "no number in any row"),
        ("time,kw\n2024-01,1\n", {}, "no series of two rows"),
        ("time,kw\n2024-01,1\n2024-02,2\n", {"frequency": "month"}, "frequency 'month' is not one"),
        ("time,kw\n2024-01,1\n2024-02,2\n", {"targets": "kwh"}, "there is no column 'kwh'"),
        ("time,kw\n2024-01,1\n2024-02,2\n", {"time_column": "when"}, "there is no column 'when'"),
        ("time\n2024-01\n", {"targets": ""}, "no column is left to forecast"),
        (hours(9, skipped=(4,)), {"covariates": "temp"}, "covariates are known of every step"),
        ("time,kw\n2024-01-01T00:00,1\n2024-01-01T00:00:30,2\n", {}, "no whole number of minutes"),
        (
            "time,kw\n2024-01-01,1\n2024-01-03,1\n2024-01-06,2\n", {"frequency": "2D"},
            "is no step of '2D'",
        ),
        (hours(40), {"validation": "x.csv"}, "x.csv"),
    ],
)  # fmt: skip
def test_what_is_no_series_is_refused_with_its_place(read, text, data, message):
    with pytest.raises(DataInvalid, match=message):
        read(text, **data)


def test_series_that_are_too_short_are_refused_before_training(read):
    recipe, splits, _ = read(hours(40), horizon=24)
    with pytest.raises(DataInvalid, match="the longest series has 40 values; a horizon of 24"):
        TASK.prepare(recipe, splits, 1)


def test_the_data_choose_what_the_recipe_leaves_open(read):
    recipe, splits, _ = read(hours(), covariates="temp")
    prepared = TASK.prepare(recipe, splits, 1)
    assert prepared.limits == {"context": 96, "horizon": 24}
    assert prepared.series.calendar
    assert prepared.series.distribution == STUDENT_T
    assert prepared.config.lags == (2, 3, 23, 24, 25, 48)


def test_small_whole_numbers_are_counts(read):
    rows = "".join(f"2024-01-{n + 1:02},{n % 4}\n" for n in range(31))
    recipe, splits, _ = read("time,kw\n" + rows)
    assert TASK.prepare(recipe, splits, 1).series.distribution == NEGATIVE_BINOMIAL


def test_what_is_held_out_is_not_learnt(read):
    """Training ends before what validates, that before what is held out."""
    recipe, splits, _ = read(hours())
    training = TASK.prepare(recipe, splits, 1).training
    assert [len(s) for s in training.training] == [240 - 3 * 24]
    assert [len(s) for s in training.validation] == [240 - 2 * 24]


def test_a_run_trains_measures_and_keeps_what_it_held_out(tmp_path, capsys):
    path, out = tmp_path / "load.csv", tmp_path / "run"
    path.write_text(hours(200))
    code = main([
        "forecast", "--name", "load", "--data", str(path), "--targets", "kw", "--covariates",
        "temp", "--context", "48", "--horizon", "6", "--quick", "--out", str(out),
    ])  # fmt: skip
    assert code == 0
    trained = TrainedModel.load(out)
    assert trained.series.covariates == ("temp",)
    assert trained.limits == {"context": 48, "horizon": 6}
    assert {figure.name for figure in trained.figures} >= {"CRPS", "sMAPE", "MASE"}
    printed = capsys.readouterr().out
    assert "floor: MASE" in printed
    assert "the last season again" in printed


def test_examples_survive_json(read):
    _, splits, _ = read(hours(skipped=(5,)))
    (example,) = splits.train
    back = TASK.example_from_json(TASK.example_to_json(example))
    assert np.array_equal(back.series.values, example.series.values, equal_nan=True)
    assert (back.series.start, back.frequency) == (example.series.start, "h")


def test_the_task_is_one_of_training(read):
    assert isinstance(TASKS["forecast"], Forecast)
