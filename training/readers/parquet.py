"""Parquet, where pyarrow is installed; nothing else needs it."""

from __future__ import annotations

from pathlib import Path

from training.readers.rows import BadRows, DataInvalid, Row, Table, check_file, listed


def read_parquet(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    """A line's number is that of the row, from 1."""
    check_file(path)
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise DataInvalid(
            f"{path} is Parquet, which pyarrow reads; pip install pyarrow, or give the rows as CSV"
        ) from None
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise DataInvalid(f"{path} is no Parquet file that pyarrow reads: {error}") from error
    columns = tuple(str(name) for name in table.column_names)
    rows = [Row(str(path), n, values) for n, values in enumerate(table.to_pylist(), start=1)]
    return Table(columns, rows, (f"columns: {listed(columns)}",))
