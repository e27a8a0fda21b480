"""Plain text: a file is one row, its text in the column ``text``."""

from __future__ import annotations

from pathlib import Path

from training.readers.rows import BadRows, Row, Table, read_utf8

TEXT = "text"


def read_plain(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    return Table((TEXT,), [Row(str(path), 1, {TEXT: read_utf8(path)})])


def read_plain_lines(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    """A line is one row; blank ones are none."""
    lines = enumerate(read_utf8(path).split("\n"), start=1)
    rows = [Row(str(path), number, {TEXT: line}) for number, line in lines if line.strip()]
    return Table((TEXT,), rows)
