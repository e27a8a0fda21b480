"""Whole and other numbers between bounds, as regular expressions of how JSON writes them."""

from __future__ import annotations

from collections.abc import Callable

# Of what is before the point, and behind it: what every reader of JSON takes.
MOST_DIGITS = 18
_FRACTION = rf"(\.[0-9]{{1,{MOST_DIGITS - 1}}})?"
_ZEROS = r"(\.0)?"


def integers(least: int | None, most: int | None) -> str:
    """Between two bounds, each of which may be None for none; most >= least."""
    return _signed(least, most, _between)


def numbers(least: int | None, most: int | None) -> str:
    """As integers(), with a fraction; with an exponent of one digit or two where there is no bound
    at all."""
    if least is None and most is None:
        return f"-?(0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}}){_FRACTION}([eE][+-]?[0-9]{{1,2}})?"
    return _signed(least, most, _decimals_between)


def _signed(least: int | None, most: int | None, unsigned: Callable[[int, int | None], str]) -> str:
    """unsigned: the expression of numbers from its first argument to its second, None for no end;
    both are at least 0."""
    ways = []
    if least is None or least < 0:
        nearest = 0 if most is None else max(-most, 0)
        ways.append(f"-{unsigned(nearest, None if least is None else -least)}")
    if most is None or most >= 0:
        ways.append(unsigned(max(least or 0, 0), most))
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"


def _decimals_between(least: int, most: int | None) -> str:
    if most is None:
        return f"{_between(least, None)}{_FRACTION}"
    if least == most:
        return f"{least}{_ZEROS}"
    return f"({_between(least, most - 1)}{_FRACTION}|{most}{_ZEROS})"


def _between(least: int, most: int | None) -> str:
    """Whole numbers, without zeros before them."""
    low = str(least)
    if most is None:
        longer = f"[1-9][0-9]{{{len(low)},{MOST_DIGITS - 1}}}"
        ways = [_same_length(low, "9" * len(low))]
        ways += [longer] if len(low) < MOST_DIGITS else []
        return f"({'|'.join(ways)})"
    high = str(most)
    ways = []
    for length in range(len(low), len(high) + 1):
        begin = low if length == len(low) else "1" + "0" * (length - 1)
        end = high if length == len(high) else "9" * length
        ways.append(_same_length(begin, end))
    return f"({'|'.join(ways)})"


def _same_length(low: str, high: str) -> str:
    """Numbers from low to high, of as many digits as both have."""
    if low == high:
        return low
    rest = len(low) - 1
    if not rest:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    first, last = int(low[0]), int(high[0])
    ways = []
    if low[1:] != "0" * rest:
        ways.append(low[0] + _same_length(low[1:], "9" * rest))
        first += 1
    upper = ""
    if high[1:] != "9" * rest:
        upper = high[0] + _same_length("0" * rest, high[1:])
        last -= 1
    if first <= last:
        ways.append(f"[{first}-{last}][0-9]{{{rest}}}")
    ways += [upper] if upper else []
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"
