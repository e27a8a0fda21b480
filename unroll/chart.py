"""A series and its forecast as lines of text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PAST, _MIDDLE, _WITHIN = "•", "─", "░"


def chart(
    past: Sequence[float],
    lower: Sequence[float],
    middle: Sequence[float],
    upper: Sequence[float],
    width: int = 78,
    height: int = 14,
) -> str:
    """``past`` as dots, then ``middle`` as a line between ``lower`` and ``upper``, shaded.

    NaN in ``past`` leaves a gap. What does not fit in ``width`` columns is left out of the past.
    """
    room = max(0, width - 12 - len(middle))
    shown = list(past)[-room:] if room else []
    known = [v for v in (*shown, *lower, *middle, *upper) if math.isfinite(v)]
    if not known:
        return ""
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 1, high + 1
    rows = [[" "] * (len(shown) + len(middle)) for _ in range(height)]

    def row_of(value: float) -> int:
        return round((high - value) / (high - low) * (height - 1))

    for column, value in enumerate(shown):
        if math.isfinite(value):
            rows[row_of(value)][column] = _PAST
    for step, bounds in enumerate(zip(lower, middle, upper, strict=True)):
        bottom, line, top = map(row_of, bounds)
        for row in range(top, bottom + 1):
            rows[row][len(shown) + step] = _WITHIN
        rows[line][len(shown) + step] = _MIDDLE
    labels = {0: high, (height - 1) // 2: (low + high) / 2, height - 1: low}
    lines = [
        f"{_label(labels.get(number)):>10} {'┤' if number in labels else '│'}{''.join(row)}"
        for number, row in enumerate(rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _label(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3e}"
