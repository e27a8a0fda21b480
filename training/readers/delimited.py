"""CSV and TSV (RFC 4180): a row a record, the first one its header unless said otherwise."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from training.readers.rows import (
    LONGEST_CELL,
    BadRows,
    DataInvalid,
    Row,
    Table,
    bad,
    listed,
    read_utf8,
)

_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def read_csv(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    """The delimiter is the one that the first line holds most of: comma, tab, semicolon or bar."""
    text = read_utf8(path)
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    if not first.count(delimiter):
        delimiter = ","
    return _read(path, text, delimiter, has_header, bad_rows)


def read_tsv(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    """A quote is a character like others unless a field begins with one."""
    return _read(path, read_utf8(path), "\t", has_header, bad_rows)


def _read(path: Path, text: str, delimiter: str, has_header: bool, bad_rows: BadRows) -> Table:
    records = list(_records(path, text, delimiter))
    if not records:
        raise DataInvalid(f"{path} has no rows; give a file with rows")
    (line, first), *_ = records
    columns = tuple(name.strip() for name in first) if has_header else _numbers(first)
    if has_header:
        _check_header(path, line, columns)
    rows = []
    for line, fields in records[1:] if has_header else records:
        if len(fields) != len(columns):
            bad_rows.report(_ragged(path, line, len(fields), len(columns), delimiter))
            continue
        rows.append(Row(str(path), line, dict(zip(columns, fields, strict=True))))
    header = f"header: {listed(columns)}" if has_header else f"no header, {len(columns)} columns"
    return Table(columns, rows, (f"{_DELIMITERS[delimiter]}s between fields, {header}",))


def _numbers(fields: list[str]) -> tuple[str, ...]:
    return tuple(str(number) for number in range(1, len(fields) + 1))


def _check_header(path: Path, line: int, columns: tuple[str, ...]) -> None:
    if not all(columns):
        number = columns.index("") + 1
        raise bad(str(path), line, "", f"column {number} of the header has no name", "name it")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise bad(
            str(path), line, "", f"the header has {listed(twice)} twice", "give each its own name"
        )


def _ragged(path: Path, line: int, found: int, wanted: int, delimiter: str) -> DataInvalid:
    name = _DELIMITERS[delimiter]
    return bad(
        str(path), line, "", f"{found} fields where the first line has {wanted}",
        f"quote a field that holds a {name}, or add what is missing",
    )  # fmt: skip


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, fields) of each record that is not blank.

    Raises DataInvalid for quotes that are not closed, or that end within a field.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    before = csv.field_size_limit(LONGEST_CELL)
    line = 1
    try:
        for fields in reader:
            if fields and any(field.strip() for field in fields):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise bad(str(path), line, "", *_explained(str(error), delimiter)) from None
    finally:
        csv.field_size_limit(before)


def _explained(error: str, delimiter: str) -> tuple[str, str]:
    if "field larger" in error:
        return (
            f"a field of more than {LONGEST_CELL:,} characters",
            "shorten it: is a quote not closed?",
        )
    if "unexpected end" in error:
        return "a quote that begins here is not closed", 'close it; a quote within one is ""'
    if "expected after" in error:
        return (
            "a closing quote has something behind it",
            f'write "" for a quote within quotes, and a {_DELIMITERS[delimiter]} after the last',
        )
    return error, "write the record as RFC 4180 has it"
