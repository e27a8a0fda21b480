"""Series, and sequences of frames, from a CSV file with a header, for the command line."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from unroll.forecasts import Series

_MISSING = ("", "nan", "na", "null")


class TableUnreadable(Exception):
    """A file that holds no series as they are asked for; the message says where and why."""


@dataclass(frozen=True)
class Table:
    """Series by the names of their columns; each ends with the last row in which one is known."""

    names: list[str]
    series: list[Series]
    horizon: int


def read_table(
    name: str,
    time: str | None,
    targets: Sequence[str],
    covariates: Sequence[str],
    horizon: int = 0,
) -> Table:
    """The columns of a file, or of standard input for ``-``.

    time: the column of timestamps; None for none. targets: columns to forecast, none for every
    other one. Rows behind the last one with a target are the steps to come, whose covariates are
    known; the table's horizon is their number, or ``horizon`` where that is not 0. Raises
    TableUnreadable.
    """
    header, rows = _read(name)
    used = [column for column in (time, *targets, *covariates) if column is not None]
    for column in used:
        if column not in header:
            raise TableUnreadable(f"{name} has no column {column!r}; it has {', '.join(header)}")
    chosen = list(targets) or [c for c in header if c not in (time, *covariates)]
    if not chosen:
        raise TableUnreadable(f"{name} has no column to forecast; name one with --targets")
    columns = {
        column: [_number(name, line, column, row[header.index(column)]) for line, row in rows]
        for column in (*chosen, *covariates)
    }
    count = 1 + max(
        (n for c in chosen for n, value in enumerate(columns[c]) if not math.isnan(value)),
        default=-1,
    )
    if not count:
        raise TableUnreadable(f"{name} has no number in {', '.join(chosen)}")
    start = rows[0][1][header.index(time)] if time is not None else ""
    horizon = horizon or len(rows) - count
    beside = {column: columns[column][: count + horizon] for column in covariates}
    series = [Series(columns[column][:count], start, beside) for column in chosen]
    return Table(chosen, series, horizon)


def read_sequences(
    name: str, channels: Sequence[str], sequence: str | None = None
) -> dict[str, list[list[float]]]:
    """Sequences of frames, a row a frame, by the value of the column ``sequence``; without one, all
    rows are one, by the file's name.

    channels: the model's; the columns of these names, or where the file has others as many columns,
    in their order. Raises TableUnreadable, for a missing value too.
    """
    header, rows = _read(name)
    if sequence is not None and sequence not in header:
        raise TableUnreadable(f"{name} has no column {sequence!r}; it has {', '.join(header)}")
    others = [column for column in header if column != sequence]
    columns = list(channels) if set(channels) <= set(others) else others
    if len(columns) != len(channels):
        raise TableUnreadable(
            f"{name} has {len(others)} columns, the model reads {len(channels)}: "
            f"{', '.join(channels)}"
        )
    found: dict[str, list[list[float]]] = {}
    for line, row in rows:
        frame = [_number(name, line, column, row[header.index(column)]) for column in columns]
        if any(map(math.isnan, frame)):
            raise TableUnreadable(
                f"{name}, line {line}: a number is missing; give each frame whole"
            )
        whose = name if sequence is None else row[header.index(sequence)]
        found.setdefault(whose, []).append(frame)
    return found


def _read(name: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with the number of its line."""
    try:
        if name == "-":
            return _parse(name, sys.stdin)
        with open(name, encoding="utf-8-sig", newline="") as file:
            return _parse(name, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableUnreadable(f"{name} cannot be read: {error}") from error


def _parse(name: str, lines: object) -> tuple[list[str], list[tuple[int, list[str]]]]:
    reader = csv.reader(lines)  # type: ignore[arg-type]
    header = next(reader, None)
    rows = [(reader.line_num, row) for row in reader if row]
    if header is None or not rows:
        raise TableUnreadable(f"{name} needs a header and at least one row")
    for line, row in rows:
        if len(row) != len(header):
            raise TableUnreadable(
                f"{name}, line {line}: {len(row)} cells, the header has {len(header)}"
            )
    return header, rows


def _number(name: str, line: int, column: str, cell: str) -> float:
    """A missing value is NaN."""
    if cell.strip().lower() in _MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError as error:
        raise TableUnreadable(f"{name}, line {line}: {column!r} is {cell!r}, no number") from error
