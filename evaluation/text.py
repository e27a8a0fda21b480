"""Figures and tables as a page writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import median


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell stays in it."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def middle(values: Sequence[float], digits: int = 1) -> str:
    """The median, and the range where it is one at so many digits."""
    shown, low, high = (f"{f(values):.{digits}f}" for f in (median, min, max))
    return shown if low == high else f"{shown} ({low}–{high})"


def listed(items: Sequence[str]) -> str:
    """one, two and three"""
    return " and ".join([*[", ".join(items[:-1])] * (len(items) > 1), *items[-1:]])


def as_text(word: str) -> str:
    """A word whose characters mean nothing to Markdown."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", word)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def power(value: float) -> str:
    """A number over many decades: 3.1e-05 as 3.1·10⁻⁵."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{digits}"
