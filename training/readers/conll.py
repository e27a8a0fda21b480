"""CoNLL: a token a line, its columns between tabs or spaces, a blank line after a sentence.

Comments of CoNLL-U (``# …``), its ranges (``1-2``) and empty nodes (``1.1``) and the ``-DOCSTART-``
of CoNLL-2003 are no tokens.
"""

from __future__ import annotations

import re
from pathlib import Path

from training.readers.rows import BadRows, DataInvalid, Row, Table, bad, read_utf8

_COMMENT = re.compile(r"#(\s|$)")
_NO_TOKEN = re.compile(r"\d+[-.]\d+")
_DOCUMENT = "-DOCSTART-"
TOKENS = "tokens"  # of a row that is a sentence: the fields of each token


def read_conll(path: Path, has_header: bool, bad_rows: BadRows) -> Table:
    """A row a sentence, with the fields of its tokens as a list of lists, all of one length.

    A sentence with a bad line is a bad row.
    """
    is_universal = path.suffix == ".conllu"
    rows: list[Row] = []
    width = 0
    sentence: list[tuple[int, list[str]]] = []
    lines = [*enumerate(read_utf8(path).split("\n"), start=1), (0, "")]
    for number, line in lines:
        if line.strip():
            fields = line.split("\t") if "\t" in line else line.split()
            is_comment = _COMMENT.match(line) is not None and (is_universal or len(fields) != width)
            if is_comment or fields[0] == _DOCUMENT:
                continue
            if not (is_universal and _NO_TOKEN.fullmatch(fields[0])):
                sentence.append((number, [field.strip() for field in fields]))
            continue
        if sentence:
            width = width or len(sentence[0][1])
            try:
                rows.append(_row(path, sentence, width))
            except DataInvalid as problem:
                bad_rows.report(problem)
        sentence = []
    columns = tuple(str(number) for number in range(1, width + 1))
    return Table(columns, rows, (f"{width} columns, {len(rows):,} sentences",))


def _row(path: Path, sentence: list[tuple[int, list[str]]], width: int) -> Row:
    for number, fields in sentence:
        if len(fields) != width:
            raise bad(
                str(path), number, "", f"{len(fields)} columns where the first token has {width}",
                "give each token every column, and a blank line after each sentence",
            )  # fmt: skip
        if not all(fields):
            raise bad(
                str(path), number, f"column {fields.index('') + 1}", "an empty field",
                "write _ where a column says nothing",
            )  # fmt: skip
    return Row(str(path), sentence[0][0], {TOKENS: [fields for _, fields in sentence]})
