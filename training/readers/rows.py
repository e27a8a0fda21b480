"""Rows of a user's files, and the errors that say what is wrong with one.

A reader (the modules beside this one) makes a Table of a file; a task makes examples of its rows.
Whatever is wrong is said with file, line, column and what would be right. Bad rows are refused,
or counted where ``--skip-bad`` tolerates some; a file that cannot be read at all is always refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_CELL = 1_000_000  # characters
_SHOWN = 60  # characters of a value in a message


class DataInvalid(Exception):
    """A file that cannot be learnt from; the message says where and what would be right."""


@dataclass
class BadRows:
    """Refuses bad rows, or counts them up to ``most``.

    examples: messages of the first that were left out.
    """

    most: int = 0
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def report(self, problem: DataInvalid) -> None:
        """Raises DataInvalid for a bad row too many."""
        self.count += 1
        self.examples = [*self.examples, str(problem)][:3]
        if self.count > self.most:
            if not self.most:
                raise problem
            raise DataInvalid(
                f"{self.count} bad rows, --skip-bad allows {self.most}; the last one: {problem}"
            )


def bad(file: str, line: int, column: str, wrong: str, right: str) -> DataInvalid:
    """The error of a row. line: from 1, 0 for the whole file. column: its name, or empty."""
    where = ", ".join((file, *([f"line {line}"] if line else []), *([column] if column else [])))
    return DataInvalid(f"{where}: {wrong}; {right}")


@dataclass(frozen=True)
class Row:
    """line: where it begins in its file, from 1. values: by column."""

    file: str
    line: int
    values: Mapping[str, Any]

    def bad(self, column: str, wrong: str, right: str) -> DataInvalid:
        return bad(self.file, self.line, f"column {column!r}", wrong, right)

    def text(self, column: str) -> str:
        """A text that holds more than spaces. Raises DataInvalid."""
        value = self.values.get(column)
        if value is None:
            raise self.bad(column, "nothing there", "give a text, or leave the row out")
        if not isinstance(value, str):
            raise self.bad(column, f"{value!r} is no text", "write it in quotes")
        if not value.strip():
            raise self.bad(column, "an empty text", "give a text, or leave the row out")
        if len(value) > LONGEST_CELL:
            raise self.bad(
                column, f"a text of {len(value):,} characters",
                f"at most {LONGEST_CELL:,} are read: is a quote not closed?",
            )  # fmt: skip
        if "\0" in value:
            raise self.bad(column, "a NUL character in it", "remove it: is the file a text?")
        return value

    def label(self, column: str) -> str:
        """A text, or the digits of a whole number. Raises DataInvalid."""
        value = self.values.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(column).strip()

    def is_empty(self, column: str) -> bool:
        """Whether nothing is there, or a text of spaces."""
        value = self.values.get(column)
        return value is None or (isinstance(value, str) and not value.strip())

    def number(self, column: str) -> float:
        """A finite number. Raises DataInvalid."""
        value = self.values.get(column)
        try:
            if isinstance(value, bool) or value is None:
                raise ValueError
            number = float(value)
        except (TypeError, ValueError):
            right = "give a number such as 1.5"
            if isinstance(value, str) and value.count(",") == 1:
                right = "give a number such as 1.5, with a point"
            raise self.bad(column, f"{shown(value)} is no number", right) from None
        if not math.isfinite(number):
            raise self.bad(column, f"{shown(value)} is not finite", "give a number such as 1.5")
        return number


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True)
class Table:
    """columns: their names, or ``1``, ``2``, … where the file has none. notes: what was inferred
    of the file, printed before anything is trained."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    notes: tuple[str, ...] = ()

    def column(self, chosen: str, file: str, flag: str) -> str:
        """The column that a name or a number, from 1 or from -1 at the end, means.

        Raises DataInvalid for one that is not there.
        """
        if chosen in self.columns:
            return chosen
        if chosen.lstrip("-").isdigit():
            number = int(chosen)
            place = number - 1 if number > 0 else len(self.columns) + number
            if number and 0 <= place < len(self.columns):
                return self.columns[place]
            raise DataInvalid(
                f"{file}: there is no column {chosen}, it has {len(self.columns)}; "
                f"choose {flag} from 1 to {len(self.columns)}"
            )
        raise DataInvalid(
            f"{file}: there is no column {chosen!r}; choose {flag} of {listed(self.columns)}"
        )


def listed(names: Sequence[str], most: int = 12) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# What a file begins with that is no text, and what to do about it.
_MAGIC = (
    (b"\x1f\x8b", "is compressed by gzip", "decompress it first: gunzip FILE"),
    (b"PK\x03\x04", "is a zip archive, as spreadsheets are", "save the sheet as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "is an old spreadsheet", "save the sheet as CSV in UTF-8"),
    (b"BZh", "is compressed by bzip2", "decompress it first: bunzip2 FILE"),
    (b"\xfd7zXZ", "is compressed by xz", "decompress it first: unxz FILE"),
    (b"PAR1", "is Parquet", "name it FILE.parquet"),
    (b"%PDF", "is a PDF", "give its text as a file of plain text"),
    (b"SQLite format 3", "is a data base", "give its rows as CSV"),
    (b"\xff\xfe", "is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 FILE"),
    (b"\xfe\xff", "is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 FILE"),
)


def check_file(path: Path) -> None:
    """Raises DataInvalid for what is no file that can be read."""
    if path.is_dir():
        raise DataInvalid(
            f"{path} is a folder; name its files by a pattern in quotes, such as '{path}/*.txt'"
        )
    if not path.exists():
        raise DataInvalid(f"{path} is not there; check its name")
    if not path.is_file():
        raise DataInvalid(f"{path} is no plain file; copy what it gives into one")


def read_utf8(path: Path) -> str:
    """The text of a file, without a byte order mark, line ends as \\n.

    Raises DataInvalid for what is no text in UTF-8.
    """
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror}") from error
    for magic, is_what, right in _MAGIC:
        if content.startswith(magic):
            raise DataInvalid(f"{path} {is_what}; {right.replace('FILE', str(path))}")
    if not content.strip():
        raise DataInvalid(f"{path} is empty; give a file with rows")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise bad(
            str(path), line, "", f"byte 0x{content[error.start]:02x} is not UTF-8",
            f"convert the file: iconv -f ISO-8859-1 -t UTF-8 {path}",
        ) from None  # fmt: skip
    return text.replace("\r\n", "\n").replace("\r", "\n")


def each(rows: Sequence[Row], bad_rows: BadRows, make: Any) -> Iterator[Any]:
    """``make`` of each row, of bad ones nothing. Raises DataInvalid for a bad row too many."""
    for row in rows:
        try:
            yield make(row)
        except DataInvalid as problem:
            bad_rows.report(problem)
