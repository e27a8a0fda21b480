"""Answers are counted by length."""

import pytest

from study.bins import Bin, count_bins


def test_each_length_falls_into_one_bin_and_longer_ones_into_none():
    answers = [(1, True), (4, False), (5, True), (6, True), (10, False), (11, True)]
    assert count_bins((4, 5, 10), answers) == [Bin(1, 4, 1, 2), Bin(5, 5, 1, 1), Bin(6, 10, 1, 2)]


def test_a_bin_has_its_share_with_the_standard_error():
    part = Bin(5, 8, right=30, examples=40)
    assert (part.name, part.percent) == ("5–8", 75.0)
    assert part.error == pytest.approx(100 * (0.75 * 0.25 / 40) ** 0.5)
    assert part.text == "75.0 ± 6.8"


def test_an_empty_bin_has_no_share():
    part = Bin(5, 5)
    assert (part.name, part.percent, part.error, part.text) == ("5", None, 0.0, "–")
