"""Files that users train from, a module a format; the name's ending says which.

A new format is a function that makes a Table of a path, and a line of FORMATS.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from training.readers.conll import read_conll
from training.readers.delimited import read_csv, read_tsv
from training.readers.json_lines import read_json_lines
from training.readers.parquet import read_parquet
from training.readers.plain import read_plain, read_plain_lines
from training.readers.rows import BadRows, DataInvalid, Row, Table, listed

# path, whether the first line is a header, bad rows → its rows
Reader = Callable[[Path, bool, BadRows], Table]

CSV, TSV, JSONL, PARQUET, TEXT, LINES, CONLL = (
    "csv", "tsv", "jsonl", "parquet", "text", "lines", "conll",
)  # fmt: skip
FORMATS: dict[str, Reader] = {
    CSV: read_csv,
    TSV: read_tsv,
    JSONL: read_json_lines,
    PARQUET: read_parquet,
    TEXT: read_plain,
    LINES: read_plain_lines,
    CONLL: read_conll,
}
_ENDINGS = {
    ".csv": CSV, ".tsv": TSV, ".tab": TSV, ".jsonl": JSONL, ".ndjson": JSONL, ".parquet": PARQUET,
    ".txt": TEXT, ".text": TEXT, ".md": TEXT, ".conll": CONLL, ".conllu": CONLL, ".iob": CONLL,
    ".iob2": CONLL, ".bio": CONLL,
}  # fmt: skip


def paths_of(pattern: str) -> list[Path]:
    """The files that a name, or a pattern with ``*``, means, in order.

    Raises DataInvalid where there is none.
    """
    path = Path(pattern).expanduser()
    if path.exists() or not glob.has_magic(pattern):
        return [path]
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [path for path in found if path.is_file()]
    if not files:
        raise DataInvalid(f"{pattern} matches no file; check the pattern, and put it in quotes")
    return files


def format_of(path: Path, chosen: str, formats: Sequence[str]) -> str:
    """``chosen``, or what the file's ending says. Raises DataInvalid for one not of ``formats``."""
    found = chosen or _ENDINGS.get(path.suffix.lower(), "")
    if not found:
        raise DataInvalid(
            f"{path}: its ending does not say what it is; give --format, one of {listed(formats)}"
        )
    if found not in formats:
        raise DataInvalid(
            f"{path}: this task reads no {found!r}; give a file in one of {listed(formats)}"
        )
    return found


def read_files(
    pattern: str, chosen: str, formats: Sequence[str], has_header: bool, bad_rows: BadRows
) -> Table:
    """All rows of the files that ``pattern`` means, which have the same columns.

    Raises DataInvalid.
    """
    tables: list[Table] = []
    for path in paths_of(pattern):
        # A folder, or what is not there, is refused by the reader with a better reason.
        of_path = format_of(path, chosen, formats) if path.is_file() else formats[0]
        table = FORMATS[of_path](path, has_header, bad_rows)
        if tables and table.columns != tables[0].columns:
            raise DataInvalid(
                f"{path} has the columns {listed(table.columns)}, the file before it "
                f"{listed(tables[0].columns)}; give files with the same columns"
            )
        tables.append(table)
    rows = [row for table in tables for row in table.rows]
    if not rows:
        raise DataInvalid(f"{pattern} has no rows; give a file with rows")
    return replace(tables[0], rows=rows)


def digest_of(pattern: str) -> str:
    """SHA-256 of the files' contents, one after the other: what a manifest records of them."""
    digest = hashlib.sha256()
    for path in paths_of(pattern):
        digest.update(path.read_bytes())
    return digest.hexdigest()


__all__ = [
    "CONLL",
    "CSV",
    "FORMATS",
    "JSONL",
    "LINES",
    "PARQUET",
    "TEXT",
    "TSV",
    "BadRows",
    "DataInvalid",
    "Row",
    "Table",
    "digest_of",
    "format_of",
    "listed",
    "paths_of",
    "read_files",
]
