"""Windows, measures and figures of forecasts; and a whole quick training on series by rule."""

import random

import numpy as np
import pytest
import torch

from bundle.series import GAUSSIAN, STUDENT_T, SeriesSpec
from training.data.competitions import MONTHLY, parse_competition
from training.data.series import (
    Series,
    Window,
    draw_windows,
    encode_window,
    rolling_windows,
    stack_windows,
)
from training.forecast_metrics import (
    crps,
    is_covered,
    mase,
    naive_error,
    seasonal_naive,
    smape,
)
from training.forecasting import (
    ForecastSettings,
    ForecastTask,
    naive_forecasts,
    sample_paths,
    score_points,
    score_samples,
    training_features,
)
from training.models.forecaster import Forecaster, ForecasterConfig
from training.models.options import RecurrentOptions

SPEC = SeriesSpec("M", STUDENT_T, (), calendar=False, least_context=3)
SETTINGS = ForecastSettings(
    context=24, horizon=6, least_context=3, batch=16, batches=3, calendar=False, samples=40
)


def wave(number, length=60, noise=0.0):
    months = np.arange(length)
    values = 10 + number + 3 * np.sin(2 * np.pi * months / 12)
    return Series(
        f"wave {number}", values + noise * np.random.default_rng(number).normal(size=length)
    )


def test_targets_are_what_the_next_step_reads():
    batch = stack_windows([Window(wave(0), 10)], SPEC, 24, 6, only_future=False)
    assert batch.lengths.tolist() == [16]
    assert torch.equal(batch.targets[0, :-1], batch.series[0, 1:, 0])
    scale = batch.log_scale.exp()
    assert torch.allclose(batch.targets[0] * scale, torch.tensor(wave(0).values[:16]).float())
    assert batch.counts[0].tolist() == [0.0] + [1.0] * 15


def test_missing_values_and_those_beyond_the_end_do_not_count():
    values = wave(0, 12).values.copy()
    values[[5, 10]] = np.nan
    batch = stack_windows([Window(Series("gap", values), 8)], SPEC, 24, 6, only_future=True)
    assert batch.counts[0].tolist() == [0.0] * 8 + [1, 1, 0, 1, 0, 0]
    assert batch.series[0, 6].tolist() == [0, 0], "the step after the gap sees that it is one"
    assert torch.isfinite(batch.targets).all()


def test_nothing_behind_the_origin_is_read_for_it():
    """No leakage: neither by the inputs nor by the scale."""
    one, other = wave(0), Series("other", np.append(wave(0).values[:30], np.full(30, 1e6)))
    first, _ = encode_window(Window(one, 30), SPEC, 24, 6)
    second, _ = encode_window(Window(other, 30), SPEC, 24, 6)
    assert first.scale == second.scale
    assert np.array_equal(first.context, second.context)
    assert np.array_equal(first.future, second.future)


def test_windows_begin_where_there_is_enough_to_read():
    windows = draw_windows([wave(0, 9), wave(1, 3)], 3, 200, random.Random(0))
    assert {w.series.name for w in windows} == {"wave 0"}, "the other one is too short"
    assert {w.origin for w in windows} == set(range(3, 9))
    with pytest.raises(ValueError, match="no series has more than least_context"):
        draw_windows([wave(1, 3)], 3, 1, random.Random(0))


def test_rolling_forecasts_begin_anew_as_long_as_a_horizon_follows():
    windows = rolling_windows([wave(0, 60)], [40], horizon=12, stride=3)
    assert [w.origin for w in windows] == [40, 43, 46]


def test_crps_is_that_of_all_pairs():
    random_numbers = np.random.default_rng(0)
    samples, values = random_numbers.normal(size=(4, 9, 3)), random_numbers.normal(size=(4, 3))
    pairs = np.abs(samples[:, :, None] - samples[:, None]).sum(axis=(1, 2)) / (9 * 8)
    wanted = np.abs(samples - values[:, None]).mean(axis=1) - pairs / 2
    assert np.allclose(crps(samples, values), wanted)


def test_crps_of_a_point_is_its_error():
    assert crps(np.full((1, 5, 1), 3.0), np.array([[4.5]])) == pytest.approx(1.5)


def test_errors_are_those_of_their_definitions():
    assert smape(np.array([110.0, 0.0]), np.array([90.0, 0.0])).tolist() == [20.0, 0.0]
    past = np.array([1.0, 2, 3, 4, 3, 4])
    assert naive_error(past, 2) == pytest.approx(np.mean([2, 2, 0, 0]))
    assert mase(np.array([2.0, 6.0]), np.array([4.0, 4.0]), past, 2) == pytest.approx(2.0)
    assert naive_error(past, 6) == pytest.approx(1.0), "no season: neighbours"
    assert naive_error(np.array([1.0, 3, 1, 3, 1]), 2) == 2.0, "the season explains all"
    assert naive_error(np.full(9, 5.0), 2) == 1.0


def test_coverage_counts_values_between_the_outer_tenths():
    samples = np.linspace(0, 1, 101)[None, :, None]
    assert is_covered(np.repeat(samples, 3, axis=2), np.array([[0.05, 0.5, 0.95]])).tolist() == [
        [False, True, False]
    ]


def test_seasonal_naive_repeats_the_last_season():
    past = np.array([1.0, 2, 3, 4, 5, np.nan])
    assert seasonal_naive(past, 5, 3).tolist() == [4, 5, 3, 4, 5]
    assert seasonal_naive(past[:2], 3, 12).tolist() == [2, 2, 2], "no season yet: the last value"


def test_a_wave_is_learnt_better_than_the_last_season_says():
    """A trend that the last season does not know; a minute of any machine is far more."""
    series = [Series(f"rise {n}", wave(n).values + 0.3 * np.arange(60)) for n in range(6)]
    past = [s.before(54) for s in series]
    task = ForecastTask(SPEC, past, past, SETTINGS, seed=1)
    config = ForecasterConfig(
        SPEC.features_size, GAUSSIAN, RecurrentOptions("lstm", 8), lags=(2, 12)
    )
    torch.manual_seed(0)
    model = Forecaster(config)
    model.standardise(training_features(task))
    before = task.validate(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for epoch in range(12):
        for batch in task.batches(epoch):
            loss, _ = task.loss(model, tuple(batch), None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    assert task.validate(model) < before - 1
    windows = [Window(s, 54) for s in series]
    scores = score_samples(windows, sample_paths(model, windows, SPEC, SETTINGS), 12)
    floor = score_points(windows, naive_forecasts(windows, 6, 12), 12)
    assert scores.scaled_error.sum() < floor.scaled_error.sum()
    assert scores.values.tolist() == [6] * 6


def test_an_epoch_has_the_same_batches_each_time():
    task = ForecastTask(SPEC, [wave(n) for n in range(4)], [], SETTINGS, seed=1)
    one, other = task.batches(3), task.batches(3)
    assert len(one) == 3
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0].targets, task.batches(4)[0].targets)


def test_paths_of_a_seed_are_the_same_again():
    torch.manual_seed(0)
    model = Forecaster(ForecasterConfig(1, STUDENT_T, RecurrentOptions("lstm", 5))).eval()
    windows = [Window(wave(0), 30), Window(wave(1), 9)]
    paths = sample_paths(model, windows, SPEC, SETTINGS, seed=4)
    assert paths.shape == (2, 40, 6)
    assert np.array_equal(paths, sample_paths(model, windows, SPEC, SETTINGS, seed=4))
    assert not np.array_equal(paths, sample_paths(model, windows, SPEC, SETTINGS, seed=5))


def test_competitions_hold_the_values_that_contestants_did_not_have():
    content = {
        "N1": {"sn": ["N1"], "period": ["MONTHLY"], "x": [1.0, 2.0], "xx": [3.0]},
        "N2": {"sn": ["N2"], "period": ["YEARLY"], "x": [9.0], "xx": [9.0]},
    }
    found = parse_competition(content, MONTHLY)
    assert [s.name for s in found.series] == ["N1"]
    assert found.series[0].values.tolist() == [1, 2, 3]
    assert found.past[0].values.tolist() == [1, 2]
