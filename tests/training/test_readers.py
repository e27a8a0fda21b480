"""Rows of files as users have them."""

import pytest

from training.readers import (
    CONLL,
    CSV,
    JSONL,
    LINES,
    PARQUET,
    TEXT,
    TSV,
    BadRows,
    DataInvalid,
    digest_of,
    read_files,
)
from training.readers.conll import TOKENS

EVERY = (CSV, TSV, JSONL, PARQUET, TEXT, LINES, CONLL)


@pytest.fixture
def read(tmp_path):
    def read(name, content, format="", has_header=True, skip=0):
        (tmp_path / name).write_bytes(content)
        return read_files(str(tmp_path / name), format, EVERY, has_header, BadRows(skip))

    return read


def values(table):
    return [dict(row.values) for row in table.rows]


def test_quoted_commas_and_line_ends_stay_in_their_field(read):
    table = read("a.csv", b'text,label\n"a, b\nc ""d""",x\nplain,y\n')
    assert values(table) == [
        {"text": 'a, b\nc "d"', "label": "x"}, {"text": "plain", "label": "y"},
    ]  # fmt: skip
    assert [row.line for row in table.rows] == [2, 4]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_the_delimiter_of_csv_is_that_of_its_first_line(read, mark, name):
    table = read("a.csv", f"text{mark}label\na, b{mark}x\n".encode())
    assert values(table) == [{"text": "a, b", "label": "x"}]
    assert table.notes[0].startswith(name)


def test_a_byte_order_mark_and_windows_line_ends_are_read(read):
    table = read("a.csv", "\ufefftext,label\r\ncafé,x\r\n".encode())
    assert values(table) == [{"text": "café", "label": "x"}]


def test_columns_without_a_header_have_numbers(read):
    table = read("a.tsv", b"a\tb\nc\td\n", has_header=False)
    assert table.columns == ("1", "2")
    assert [table.column(c, "a.tsv", "--x") for c in ("1", "2", "-1")] == ["1", "2", "2"]


def test_blank_lines_are_no_rows(read):
    assert len(read("a.csv", b"\ntext\n\na\n  \nb\n").rows) == 2


def test_keys_of_json_are_columns(read):
    table = read("a.jsonl", b'{"text": "a", "n": 1}\n\n{"n": 2, "text": "b", "more": 3}\n')
    assert table.columns == ("text", "n")
    assert [row.line for row in table.rows] == [1, 3]


def test_text_files_are_one_row_and_lines_one_each(read):
    text = b"one\n\n  two\n"
    assert values(read("a.txt", text)) == [{"text": "one\n\n  two\n"}]
    assert values(read("a.txt", text, LINES)) == [{"text": "one"}, {"text": "  two"}]


def test_sentences_of_conll_end_at_blank_lines(read):
    table = read("a.conll", b"-DOCSTART- O\n\nAda B\nsaw O\n\n# O\nit O")
    assert [row.values[TOKENS] for row in table.rows] == [
        [["Ada", "B"], ["saw", "O"]], [["#", "O"], ["it", "O"]],
    ]  # fmt: skip


def test_conll_u_has_comments_ranges_and_empty_nodes(read):
    lines = ["# text = du", "1-2\tdu\t_", "1\tde\tADP", "1.1\tx\t_", "2\tle\tDET"]
    (row,) = read("a.conllu", "\n".join(lines).encode()).rows
    assert row.values[TOKENS] == [["1", "de", "ADP"], ["2", "le", "DET"]]


def test_bad_rows_are_left_out_up_to_a_number(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\na,x\nb\nc,y,z\nd,w\n")
    bad_rows = BadRows(2)
    table = read_files(str(tmp_path / "a.csv"), "", EVERY, True, bad_rows)
    assert [row.values["text"] for row in table.rows] == ["a", "d"]
    assert bad_rows.count == 2
    assert "a.csv, line 3: 1 fields" in bad_rows.examples[0]


def test_files_of_a_pattern_come_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    table = read_files(str(tmp_path / "*.txt"), "", EVERY, True, BadRows())
    assert [row.values["text"] for row in table.rows] == ["text a", "text b", "text c"]
    assert digest_of(str(tmp_path / "*.txt")) != digest_of(str(tmp_path / "a.txt"))


def test_parquet_is_read_as_pyarrow_writes_it(tmp_path):
    """Whatever its columns' types; an empty cell is none."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    columns = {
        "text": arrow.array(["wäre", "a, b", None]).dictionary_encode(),
        "label": arrow.array([1, 2, 2], arrow.int8()),
        "share": arrow.array([0.5, 1.25, None], arrow.float32()),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table(columns), path, compression="zstd")
    table = read_files(str(path), "", EVERY, True, BadRows())
    assert table.columns == ("text", "label", "share")
    first, second, third = table.rows
    assert (first.text("text"), first.label("label"), first.number("share")) == ("wäre", "1", 0.5)
    assert second.text("text") == "a, b"
    for read in (third.text, third.number):
        with pytest.raises(DataInvalid, match=r"a\.parquet, line 3"):
            read("text" if read == third.text else "share")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataInvalid, match="no Parquet file that pyarrow reads"):
        read_files(str(path), "", EVERY, True, BadRows())
