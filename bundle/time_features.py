"""Timestamps of a series at a fixed frequency, and the calendar features that a forecaster reads.

Frequencies are those of pandas: a unit, ``min``, ``h``, ``D``, ``W``, ``M``, ``Q`` or ``Y``, after
a whole number where a step is several of them (``15min``). The features are those of GluonTS, each
as a point on a circle: the hour of the day, the day of the week, the day of the year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_UNITS = ("min", "h", "D", "W", "M", "Q", "Y")
_PATTERN = re.compile(rf"([1-9][0-9]{{0,3}})?({'|'.join(_UNITS)})")
_SECONDS = {"min": 60, "h": 3600, "D": 86_400, "W": 604_800}
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
# Steps of one unit after which a series repeats itself, as seasonal naive forecasts assume.
_SEASONS = {"min": 1440, "h": 24, "D": 7, "W": 52, "M": 12, "Q": 4, "Y": 1}

# What timestamps may be: numpy counts months and seconds of far more years than a calendar has.
_FIRST, _LAST = np.datetime64("0001-01-01T00:00:00"), np.datetime64("9999-01-01T00:00:00")

HOUR_OF_DAY, DAY_OF_WEEK, DAY_OF_YEAR = "hour of day", "day of week", "day of year"
AGE = "age"


class FrequencyInvalid(ValueError):
    """A frequency that is none of pandas' as they are read here."""


class TimeInvalid(ValueError):
    """A timestamp that cannot be read, or lies outside the calendar."""


@dataclass(frozen=True)
class Frequency:
    """How far two values of a series are apart. Raises FrequencyInvalid.

    name: such as ``h``, ``15min`` or ``M``.
    """

    name: str

    def __post_init__(self) -> None:
        if not _PATTERN.fullmatch(self.name):
            raise FrequencyInvalid(
                f"frequency {self.name!r} is not one of {', '.join(_UNITS)}, with a whole number "
                "before it where a step is several of them, such as 15min"
            )

    @cached_property
    def _parts(self) -> tuple[int, str]:
        count, unit = _PATTERN.fullmatch(self.name).groups()  # type: ignore[union-attr]
        return int(count or 1), unit

    @property
    def season(self) -> int:
        """Steps after which a series repeats itself: a day of hours, a week of days, a year."""
        count, unit = self._parts
        return max(1, _SEASONS[unit] // count)

    @property
    def calendar(self) -> tuple[str, ...]:
        """The cycles of the calendar that this frequency is finer than."""
        _, unit = self._parts
        if unit == "Y":
            return ()
        of_week = (DAY_OF_WEEK,) if unit in ("min", "h", "D") else ()
        of_day = (HOUR_OF_DAY,) if unit in ("min", "h") else ()
        return (*of_day, *of_week, DAY_OF_YEAR)

    def times(self, start: np.datetime64, first: int, count: int) -> Array:
        """Timestamps number ``first`` to ``first + count - 1`` of a series that begins at
        ``start``.

        Months keep the day of ``start``, or end where a month has no such day. (count,)
        datetime64 in seconds. Raises TimeInvalid beyond the year 9998.
        """
        size, unit = self._parts
        steps = np.arange(first, first + count) * size
        if unit in _SECONDS:
            times = start + (steps * _SECONDS[unit]).astype("timedelta64[s]")
        else:
            times = _months_after(start, steps * _MONTHS[unit])
        if count and not (times[0] >= _FIRST and times[-1] < _LAST):
            raise TimeInvalid(
                f"{count} steps of {self.name!r} from step {first} after {start} leave the years "
                "1 to 9998"
            )
        return times

    def features(self, start: np.datetime64 | None, first: int, count: int) -> Array:
        """(count, features) float32 of the steps from ``first`` on: age, then a sine and a cosine
        of each cycle of ``calendar``; age alone where ``start`` is None.

        Age is the decimal logarithm of a step's number, as in GluonTS.
        """
        age = np.log10(2.0 + np.arange(first, first + count))
        columns = [age]
        if start is not None:
            times = self.times(start, first, count)
            for cycle in self.calendar:
                angle = 2 * np.pi * _CYCLES[cycle](times)
                columns += [np.sin(angle), np.cos(angle)]
        return np.stack(columns, axis=1).astype(np.float32)

    def feature_names(self, calendar: bool) -> tuple[str, ...]:
        """Names of the columns that features() gives, with a start or without one."""
        cycles = self.calendar if calendar else ()
        return (AGE, *(f"{cycle}, {part}" for cycle in cycles for part in ("sine", "cosine")))


def parse_time(text: str) -> np.datetime64:
    """A timestamp in ISO 8601, to the second; without a zone, or in UTC. Raises TimeInvalid."""
    plain = text.strip().removesuffix("Z").removesuffix("+00:00")
    if not re.fullmatch(r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?)?)?", plain):
        raise TimeInvalid(
            f"{text[:40]!r} is no timestamp; write 2024-03, 2024-03-01 or 2024-03-01T13:00:00, "
            "without a zone or in UTC"
        )
    try:
        time = np.datetime64(plain, "s")
    except ValueError as error:
        raise TimeInvalid(f"{text[:40]!r} is no day or hour of the calendar") from error
    if not _FIRST <= time < _LAST:
        raise TimeInvalid(f"{text[:40]!r} lies outside the years 1 to 9998")
    return time


def _months_after(start: np.datetime64, months: Array) -> Array:
    month = start.astype("datetime64[M]")
    day = start - month.astype("datetime64[s]")
    begins = (month + months.astype("timedelta64[M]")).astype("datetime64[s]")
    ends = (month + (months + 1).astype("timedelta64[M]")).astype("datetime64[s]")
    last_day = ends - np.timedelta64(86_400, "s") + day % np.timedelta64(86_400, "s")
    times: Array = np.minimum(begins + day, last_day)
    return times


def _share(times: Array, unit: str, seconds: Array | int) -> Array:
    """How far into its day or year each time is, 0 to 1."""
    into = times - times.astype(f"datetime64[{unit}]").astype("datetime64[s]")
    share: Array = into.astype(np.int64) / seconds
    return share


def _day_share(times: Array) -> Array:
    return _share(times, "D", 86_400)


def _week_share(times: Array) -> Array:
    # The first of January 1970 was a Thursday.
    days = times.astype("datetime64[D]").astype(np.int64) + 3
    share: Array = days % 7 / 7.0
    return share


def _year_share(times: Array) -> Array:
    years = times.astype("datetime64[Y]")
    length = (years + np.timedelta64(1, "Y")).astype("datetime64[s]") - years.astype(
        "datetime64[s]"
    )
    return _share(times, "Y", length.astype(np.int64))


_CYCLES = {HOUR_OF_DAY: _day_share, DAY_OF_WEEK: _week_share, DAY_OF_YEAR: _year_share}
