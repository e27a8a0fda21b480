import numpy as np
import pytest

from training.measurements import bootstrap_ratio, ratio, share, wilson


def test_an_interval_of_a_share():
    """Five of ten: 23.66 to 76.34 %; none of ten leaves up to 27.75 %."""
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_a_bootstrap_covers_what_the_groups_vary_by():
    """Groups that agree leave nothing open; few that differ leave much."""
    ones = np.ones(50)
    assert bootstrap_ratio(ones, 2 * ones) == (0.5, 0.5)
    low, high = bootstrap_ratio(np.arange(2.0).repeat(25), ones)
    assert low == pytest.approx(0.36, abs=0.03)
    assert high == pytest.approx(0.64, abs=0.03)


def test_a_share_is_in_percent():
    measured = share([True] * 5 + [False] * 5)
    assert (measured.value, measured.examples, measured.method) == (50.0, 10, "Wilson")
    assert (measured.low, measured.high) == pytest.approx((23.66, 76.34), abs=1e-2)


def test_a_ratio_is_of_sums():
    measured = ratio([1, 3], [2, 10], 12, "sentences", scale=100)
    assert measured.value == pytest.approx(100 * 4 / 12)
    assert (measured.examples, measured.method) == (12, "bootstrap over sentences")
    assert measured.low == pytest.approx(30.0)
    assert measured.high == pytest.approx(50.0)
