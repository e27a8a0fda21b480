import numpy as np
import pytest

from bundle.series import NEGATIVE_BINOMIAL, STUDENT_T, SeriesSpec, encode_series, scale_of
from bundle.time_features import parse_time

SPEC = SeriesSpec("D", STUDENT_T, ("price",), calendar=True, least_context=2)
START = parse_time("2024-03-01")


def encoded(values, first=0, horizon=2):
    values = np.array(values)
    covariates = np.arange(len(values) + horizon, dtype=float)[:, None]
    return encode_series(SPEC, values, START, covariates, horizon, first)


def test_the_scale_is_the_mean_absolute_value_that_is_there():
    assert scale_of(np.array([2.0, np.nan, -4.0])) == 3.0
    assert scale_of(np.array([0.0, 0.0])) == 1.0
    assert scale_of(np.array([np.nan])) == 1.0


def test_each_step_reads_the_value_before_it():
    series = encoded([2.0, np.nan, 4.0])
    assert series.scale == 3.0
    assert series.context[:, 0].tolist() == pytest.approx([0, 2 / 3, 0])
    assert series.context[:, 1].tolist() == [0, 1, 0], "nothing is before the first, one is missing"
    assert (series.last, series.observed) == (pytest.approx(4 / 3), True)
    assert series.context.shape == (3, 2 + SPEC.features_size)
    assert series.future.shape == (2, SPEC.features_size)


def test_a_missing_last_value_is_not_observed():
    series = encoded([2.0, 3.0, np.nan])
    assert (series.last, series.observed) == (0.0, False)


def test_covariates_and_the_calendar_go_on_into_the_future():
    series = encoded([1.0, 1.0, 1.0])
    assert series.context[:, -1].tolist() == [0, 1, 2]
    assert series.future[:, -1].tolist() == [3, 4]
    later = encoded([1.0, 1.0, 1.0], first=7)
    assert np.allclose(series.future[:, 1:3], later.future[:, 1:3]), "a week later"
    assert not np.allclose(series.future[:, 3:5], later.future[:, 3:5])
    assert np.array_equal(series.future[:, 0], later.future[:, 0]), "age counts what is read"


def test_a_value_does_not_depend_on_those_after_it_but_by_the_scale():
    """No leakage: what is read of a step holds nothing of the step itself."""
    one, other = encoded([1.0, 3.0, 2.0]), encoded([1.0, 3.0, -2.0])
    assert one.scale == other.scale
    assert np.array_equal(one.context, other.context)


def test_counts_are_those_of_the_negative_binomial():
    assert SeriesSpec("D", NEGATIVE_BINOMIAL, (), False, 1).is_count
    assert not SPEC.is_count
