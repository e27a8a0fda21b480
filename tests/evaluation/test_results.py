import pytest

from bundle.manifest import FigureSpec
from evaluation.results import check
from training.measurements import share


def claim(value, unit="%", split="all", name="accuracy", examples=4):
    return FigureSpec(name, value, unit, split, examples, "make")


THREE_OF_FOUR = share([True, True, True, False])


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
    (row,) = check([claim(claimed, unit)], [THREE_OF_FOUR])
    assert row.measured.value == 75.0
    assert row.reproduces is reproduces


def test_a_figure_of_other_examples_does_not_reproduce():
    (row,) = check([claim(75.0, examples=8)], [THREE_OF_FOUR])
    assert not row.reproduces


def test_a_claim_that_nobody_measured_does_not_reproduce():
    """Figures are measured in the manifest's order."""
    rows = check([claim(75.0), claim(75.0, split="some")], [THREE_OF_FOUR])
    assert [row.reproduces for row in rows] == [True, False]
    assert rows[1].measured is None


def test_what_a_bundle_of_before_does_not_claim_is_left_out():
    (row,) = check([claim(75.0)], [THREE_OF_FOUR, share([False])])
    assert row.reproduces
