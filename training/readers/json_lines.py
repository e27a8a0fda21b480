"""JSONL: one JSON object a line, its keys the columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from training.readers.rows import BadRows, DataInvalid, Row, Table, bad, listed, read_utf8, shown


def read_json_lines(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    """Every line has the keys of the first one, and may have more."""
    text = read_utf8(path)
    if text.lstrip().startswith("["):
        raise DataInvalid(f"{path} is one JSON array; write one object a line: jq -c '.[]' {path}")
    rows: list[Row] = []
    columns: tuple[str, ...] = ()
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            values = _object(path, line, content)
            columns = columns or tuple(values)
            missing = [name for name in columns if name not in values]
            if missing:
                raise bad(
                    str(path), line, "", f"the key {missing[0]!r} is missing",
                    f"give the keys of the first line: {listed(columns)}",
                )  # fmt: skip
        except DataInvalid as problem:
            bad_rows.report(problem)
            continue
        rows.append(Row(str(path), line, values))
    return Table(columns, rows, (f"keys: {listed(columns)}",))


def _object(path: Path, line: int, content: str) -> dict[str, Any]:
    try:
        found = json.loads(content, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise bad(
            str(path), line, f"character {error.colno}", f"no JSON: {error.msg}",
            "write one object a line",
        ) from None  # fmt: skip
    except ValueError as error:
        raise bad(str(path), line, "", str(error), "give a number, or leave the row out") from None
    except RecursionError:
        raise bad(str(path), line, "", "JSON nested too deep", "give a flat object") from None
    if not isinstance(found, dict):
        raise bad(str(path), line, "", f"{shown(found)} is no object", 'write {"text": "…"}')
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON's")
