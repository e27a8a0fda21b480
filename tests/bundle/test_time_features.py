import numpy as np
import pytest

from bundle.time_features import AGE, Frequency, FrequencyInvalid, TimeInvalid, parse_time


def times(frequency, start, first, count):
    return [str(t) for t in Frequency(frequency).times(parse_time(start), first, count)]


@pytest.mark.parametrize(
    ("name", "season"),
    [("min", 1440), ("15min", 96), ("h", 24), ("D", 7), ("W", 52), ("M", 12), ("Q", 4), ("Y", 1)],
)
def test_a_frequency_has_a_season(name, season):
    assert Frequency(name).season == season


@pytest.mark.parametrize("name", ["", "H", "0h", "1.5h", "hh", "month", "-2D", "10000h"])
def test_other_frequencies_are_refused(name):
    with pytest.raises(FrequencyInvalid, match="is not one of min, h, D"):
        Frequency(name)


def test_steps_follow_the_calendar():
    """Months keep their day, or end where a month has no such day."""
    assert times("M", "2024-01-31", 0, 3) == [
        "2024-01-31T00:00:00", "2024-02-29T00:00:00", "2024-03-31T00:00:00",
    ]  # fmt: skip
    assert times("2h", "2024-02-28T23:30", 1, 1) == ["2024-02-29T01:30:00"]
    assert times("Q", "2024-02", 3, 1) == ["2024-11-01T00:00:00"]
    assert times("Y", "2024-02-29", 1, 1) == ["2025-02-28T00:00:00"]


def test_features_are_age_and_points_on_circles():
    hourly = Frequency("h")
    names = hourly.feature_names(calendar=True)
    assert names[0] == AGE
    assert len(names) == 7
    found = hourly.features(parse_time("2024-01-01T06:00"), 0, 25)
    assert found.shape == (25, 7)
    assert found.dtype == np.float32
    assert found[0, 1] == pytest.approx(1.0), "six o'clock is a quarter of the day"
    assert found[0, 1] == pytest.approx(found[24, 1])
    assert found[0, 3] == pytest.approx(0.0), "a Monday begins the week"
    assert np.allclose(found[:, 1] ** 2 + found[:, 2] ** 2, 1)


def test_without_a_start_age_alone_is_left():
    found = Frequency("D").features(None, 3, 2)
    assert found == pytest.approx(np.log10([[5.0], [6.0]]))


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13", "2024-02-30", "24-01-01", "0000-01"])
def test_what_is_no_timestamp_is_refused(text):
    with pytest.raises(TimeInvalid):
        parse_time(text)


def test_steps_beyond_the_calendar_are_refused():
    with pytest.raises(TimeInvalid, match="leave the years 1 to 9998"):
        Frequency("Y").times(parse_time("9990"), 0, 20)
