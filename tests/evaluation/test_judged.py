import numpy as np
import pytest

from bundle.manifest import FigureSpec
from evaluation.intervals import bootstrap_ratio, wilson
from evaluation.judged import check, ratio, share


def claim(value, unit="%", split="all", name="accuracy", examples=4):
    return FigureSpec(name, value, unit, split, examples, "make")


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


@pytest.mark.parametrize(
    ("unit", "claimed", "reproduces"),
    [
        ("%", 75.19, True),
        ("%", 75.21, False),
        ("points, nrefs:1", 74.81, True),
        ("nats a character", 75.0019, True),
        ("nats a character", 75.0021, False),
        ("", 75.003, False),
    ],
)
def test_a_figure_reproduces_within_its_unit_s_tolerance(unit, claimed, reproduces):
    spec = claim(claimed, unit)
    (row,) = check([spec], [share(spec, [True, True, True, False])])
    assert row.judged.value == 75.0
    assert row.reproduces is reproduces


def test_a_figure_of_other_examples_does_not_reproduce():
    spec = claim(75.0, examples=8)
    (row,) = check([spec], [share(spec, [True, True, True, False])])
    assert not row.reproduces


def test_a_claim_that_nobody_measured_does_not_reproduce():
    """Figures are told apart by name and split."""
    measured = claim(75.0)
    rows = check([measured, claim(75.0, split="some")], [share(measured, [True] * 3 + [False])])
    assert [row.reproduces for row in rows] == [True, False]
    assert rows[1].judged is None


def test_a_ratio_is_of_sums():
    judged = ratio(claim(0.0), [1, 3], [2, 10], 12, "sentences", scale=100)
    assert judged.value == pytest.approx(100 * 4 / 12)
    assert (judged.examples, judged.method) == (12, "bootstrap over sentences")
    assert judged.low == pytest.approx(30.0)
    assert judged.high == pytest.approx(50.0)
