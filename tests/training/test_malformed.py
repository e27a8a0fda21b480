"""Files that cannot be learnt from: each is refused before training, with its message."""

import gzip
import os

import pytest

from training.__main__ import main

HEADER = b"text,label\n"
GOOD = HEADER + b"".join(b"text number %d,label%d\n" % (n, n % 2) for n in range(40))
PAIRS = b"".join(b"source %d\ttarget %d\n" % (n, n) for n in range(40))
CONLL = b"\n\n".join(b"Ada B-PER\nsaw O\n%d O" % n for n in range(40)) + b"\n"
PAINTS = b"name,r,g\n" + b"".join(b"paint %d,%d,%d\n" % (n, n, 2 * n) for n in range(40))
JSONL = b"".join(b'{"text": "text %d", "label": "l%d"}\n' % (n, n % 2) for n in range(40))
LONG = b"word " * 250_000

# name: command, file, content, what the message holds
CASES = {
    # files
    "no file": ("classify", "none.csv", None, "none.csv is not there; check its name"),
    "an empty file": ("classify", "a.csv", b"", "a.csv is empty; give a file with rows"),
    "blank lines alone": ("classify", "a.csv", b"\n \n\n", "a.csv is empty"),
    "a gzip named csv": ("classify", "a.csv", gzip.compress(GOOD), "is compressed by gzip; dec"),
    "a spreadsheet named csv": ("classify", "a.csv", b"PK\x03\x04rest", "is a zip archive, as spr"),
    "an old spreadsheet": ("classify", "a.csv", b"\xd0\xcf\x11\xe0x", "is an old spreadsheet; sa"),
    "Parquet named csv": ("classify", "a.csv", b"PAR1rest", "is Parquet; name it"),
    "a PDF": ("generate", "a.txt", b"%PDF-1.7 rest", "is a PDF; give its text"),
    "UTF-16": ("classify", "a.csv", GOOD.decode().encode("utf16"), "is UTF-16; convert it: iconv"),
    "Latin-1": (
        "classify", "a.csv", GOOD + "café,label0\n".encode("latin1"),
        "a.csv, line 42: byte 0xe9 is not UTF-8; convert the file: iconv -f ISO-8859-1",
    ),
    "a name that says nothing": ("classify", "a.dat", GOOD, "give --format, one of 'csv', 'tsv'"),
    "a format of another task": ("classify", "a.conll", CONLL, "this task reads no 'conll'"),
    # the shape of CSV
    "a ragged row": (
        "classify", "a.csv", GOOD + b"one field\n",
        "a.csv, line 42: 1 fields where the first line has 2; quote a field that holds a comma",
    ),
    "a comma without quotes": (
        "classify", "a.csv", GOOD + b"hello, world,label0\n", "line 42: 3 fields where the first"
    ),
    "a quote that stays open": (
        "classify", "a.csv", HEADER + b'"hello,label0\n' + GOOD[11:],
        "a.csv, line 2: a quote that begins here is not closed; close it",
    ),
    "text behind a quote": (
        "classify", "a.csv", GOOD + b'"hello" there,label0\n',
        "a.csv, line 42: a closing quote has something behind it",
    ),
    "a huge cell": (
        "classify", "a.csv", GOOD + b'"' + LONG + b'",label0\n',
        "a.csv, line 42: a field of more than 1,000,000 characters; shorten it",
    ),
    "a header with a nameless column": (
        "classify", "a.csv", b"text,label,\n" + b"a,b,c\n" * 40, "column 3 of the header has no"
    ),
    "a header with a name twice": (
        "classify", "a.csv", b"text,label,text\n" + b"a,b,c\n" * 40, "the header has 'text' twice"
    ),
    "a header alone": ("classify", "a.csv", HEADER, "a.csv has no rows; give a file with rows"),
    "a NUL": ("classify", "a.csv", GOOD + b"a\0b,label0\n", "line 42, column 'text': a NUL"),
    # columns and values
    "a missing text column": (
        "classify", "a.csv", GOOD.replace(b"text,", b"subject,", 1),
        "there is no column 'text'; choose --text-column of 'subject', 'label'",
    ),
    "a missing label column": (
        "classify", "a.csv", GOOD.replace(b",label\n", b",class\n", 1),
        "there is no column 'label'; choose --label-column of 'text', 'class'",
    ),
    "a column number too high": (
        "classify --text-column 1 --label-column 5", "a.csv", GOOD,
        "there is no column 5, it has 2; choose --label-column from 1 to 2",
    ),
    "one column for both": (
        "classify --label-column text", "a.csv", GOOD, "cannot be text and label at once"
    ),
    "an empty text": (
        "classify", "a.csv", GOOD + b" ,label0\n", "line 42, column 'text': an empty text; give a"
    ),
    "an empty label": ("classify", "a.csv", GOOD + b"hello,\n", "line 42, column 'label': an em"),
    "one label": (
        "classify", "a.csv", GOOD.replace(b"label1", b"label0"),
        "every row has the label 'label0'; give rows of two labels at least",
    ),
    "a label a row": (
        "classify --label-column 1 --text-column 2 --header yes", "a.csv",
        b"id,words\n" + b"".join(b"%d,text %d\n" % (n, n) for n in range(40)),
        "40 labels for 40 rows, such as '9': is another column meant?",
    ),
    "too few rows": ("classify", "a.csv", HEADER + b"a,x\nb,y\n", "2 different rows to train on"),
    "the same row again and again": (
        "classify", "a.csv", HEADER + b"same text,x\nSame  TEXT,y\n" * 40, "1 different rows to t"
    ),
    "a bad row too many": (
        "classify --skip-bad 1", "a.csv", GOOD + b"one\ntwo\n",
        "2 bad rows, --skip-bad allows 1; the last one: ",
    ),
    "a header that is no choice": ("classify --header maybe", "a.csv", GOOD, "choose one of auto,"),
    # JSONL
    "an array of JSON": ("classify", "a.jsonl", b'[{"text": 1}]', "is one JSON array; write one o"),
    "a line that is no JSON": (
        "classify", "a.jsonl", JSONL + b"{text: 1}\n", "a.jsonl, line 41, character 2: no JSON: "
    ),
    "a line that is no object": ("classify", "a.jsonl", JSONL + b"[1]\n", "line 41: [1] is no obj"),
    "a missing key": (
        "classify", "a.jsonl", JSONL + b'{"text": "a"}\n', "line 41: the key 'label' is missing"
    ),
    "a text that is a number": (
        "classify", "a.jsonl", JSONL + b'{"text": 7, "label": "l"}\n', "7 is no text; write it in"
    ),
    "a text that is null": (
        "classify", "a.jsonl", JSONL + b'{"text": null, "label": "l"}\n', "nothing there; give a t"
    ),
    "NaN in JSON": (
        "classify", "a.jsonl", JSONL + b'{"text": NaN, "label": "l"}\n', "line 41: NaN is no number"
    ),
    "JSON nested without end": (
        "classify", "a.jsonl", JSONL + b"[" * 100_000 + b"\n", "line 41: JSON nested too deep"
    ),
    # pairs
    "three columns of pairs": (
        "seq2seq", "a.tsv", PAIRS.replace(b"\n", b"\tmore\n"), "there is no column 'source'; choose"
    ),
    "a pair without a target": (
        "seq2seq", "a.tsv", PAIRS + b"source\n", "line 41: 1 fields where the first line has 2; quo"
    ),
    "an empty target": ("seq2seq", "a.tsv", PAIRS + b"source\t \n", "column '2': an empty text"),
    "source and target alike": (
        "seq2seq --source-column 1 --target-column 1", "a.tsv", PAIRS, "source and target at once"
    ),
    "tokens that are none": (
        "seq2seq --set task.source_tokens=words", "a.tsv", PAIRS, "'words'; choose characters, pie"
    ),
    # CoNLL
    "a token without a label": (
        "tag", "a.conll", CONLL + b"\nAda\n", "1 columns where the first token has 2; give each"
    ),
    "an empty field": (
        "tag", "a.conll", CONLL.replace(b" ", b"\t") + b"\n\tO\n", "column 1: an empty field; write"
    ),
    "one label of tokens": (
        "tag", "a.conll", CONLL.replace(b"B-PER", b"O"), "every token has the label 'O'; choose ano"
    ),
    "tokens and labels alike": (
        "tag --label-column 1", "a.conll", CONLL, "column 1 cannot be tokens and labels at once"
    ),
    "numbers for labels": (
        "tag --token-column 2 --label-column 1", "a.conll",
        b"\n\n".join(b"%d a%d\nx%d b" % (n, n, n) for n in range(1200)),
        "different labels, such as",
    ),
    # numbers
    "a number that is none": (
        "vec2seq --text-column name", "a.csv", PAINTS + b"x,one,2\n",
        "line 42, column 'r': 'one' is no number; give a number such as 1.5",
    ),
    "a comma in a number": (
        "vec2seq --text-column name", "a.csv", PAINTS + b'x,"1,5",2\n', "such as 1.5, with a point"
    ),
    "NaN": ("vec2seq --text-column name", "a.csv", PAINTS + b"x,nan,2\n", "'nan' is not finite; g"),
    "an infinity": ("vec2seq --text-column name", "a.csv", PAINTS + b"x,1,inf\n", "is not finite"),
    "no number in a row": (
        "vec2seq --text-column name", "a.csv", PAINTS + b"x,,\n", "column 'r': no number in any col"
    ),
    "an empty number that the recipe excludes": (
        "vec2seq --text-column name --set task.unknown_fields=0", "a.csv", PAINTS + b"x,,2\n",
        "task.unknown_fields is 0, and 1 rows have an empty number; leave the key, fill the cells",
    ),
    "a number far below 0": (
        "vec2seq --text-column name", "a.csv", PAINTS + b"x,-1e10,2\n",
        "line 42, column 'r': -1e+10 is not from -1e+09 to 1e+09; give the column in a larger unit",
    ),
    "a number below 0 that the recipe excludes": (
        "vec2seq --text-column name --set model.signed=false", "a.csv", PAINTS + b"x,-1,2\n",
        "model.signed is false, and -1 is below 0; leave the key, or such rows",
    ),
    "no numbers at all": ("vec2seq", "a.csv", GOOD, "no column but 'text' has numbers; name them"),
    "a number column that is not there": (
        "vec2seq --text-column name --number-columns r,x", "a.csv", PAINTS, "there is no column 'x'"
    ),
    # texts
    "too short a text": ("generate", "a.txt", b"Hello.", "6 characters of text; give at least"),
    "tokens of an unknown kind": (
        "generate --tokens letters", "a.txt", b"Hello there. " * 500, "tokens are 'letters'; choose"
    ),
    "a tokenizer.json that is none": (
        "generate --tokens none.json", "a.txt", b"Hello there. " * 500, "none.json is no tokenizer"
    ),
    "nothing to fill": ("fill", "a.txt", b"one two three four\n" * 3, "1 different rows to trai"),
    "no word often enough": (
        "fill", "a.txt", b"".join(b"w%d x%d y%d\n" % (n, n, n) for n in range(40)),
        "0 words occur 5 times at least beside the",
    ),
    # recipes
    "a key that is none": ("classify --set task.bach=3", "a.csv", GOOD, "near it: task.batch"),
    "a set without a value": ("classify --set task.batch", "a.csv", GOOD, "has no value; write ta"),
    "a value of another type": (
        "classify --set task.batch=many", "a.csv", GOOD, "[task]: batch is 'many', not of type int"
    ),
    "a cell that is none": (
        "classify --set model.recurrent.cell=lst", "a.csv", GOOD, "cell 'lst' is not one of rnn, gr"
    ),
    "too large a share": (
        "classify --set data.held_out_share=0.7", "a.csv", GOOD, "held_out_share is 0.7; choose 0 t"
    ),
    "minutes below 0": ("classify --minutes -1", "a.csv", GOOD, "--minutes is -1; choose a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_a_bad_file_is_refused_with_its_message(case, tmp_path, monkeypatch, capsys):
    command, name, content, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    task, *flags = command.split()
    assert main([task, "--name", "bad", "--data", name, "--quick", *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def refusal(tmp_path, monkeypatch, capsys, *arguments):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments]) == 1
    return capsys.readouterr().err


def test_a_folder_is_refused_with_a_pattern(tmp_path, monkeypatch, capsys):
    (tmp_path / "texts").mkdir()
    said = refusal(tmp_path, monkeypatch, capsys, "generate", "--name", "x", "--data", "texts")
    assert "texts is a folder; name its files by a pattern in quotes, such as 'texts/*.txt'" in said


def test_a_pattern_that_matches_nothing_is_refused(tmp_path, monkeypatch, capsys):
    said = refusal(tmp_path, monkeypatch, capsys, "generate", "--name", "x", "--data", "a/*.txt")
    assert "a/*.txt matches no file; check the pattern, and put it in quotes" in said


def test_files_with_other_columns_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.csv").write_bytes(GOOD)
    (tmp_path / "b.csv").write_bytes(b"label,text\n" + b"x,y\n" * 20)
    said = refusal(tmp_path, monkeypatch, capsys, "classify", "--name", "x", "--data", "*.csv")
    assert "b.csv has the columns 'label', 'text', the file before it 'text', 'label'" in said


def test_a_pipe_is_refused(tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "a.csv")
    said = refusal(tmp_path, monkeypatch, capsys, "classify", "--name", "x", "--data", "a.csv")
    assert "a.csv is no plain file; copy what it gives into one" in said


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    said = refusal(tmp_path, monkeypatch, capsys, "classify", "--name", "x", "--data", "a.parquet")
    assert "a.parquet is Parquet, which pyarrow reads; pip install pyarrow" in said


@pytest.mark.parametrize("name", ["Tickets", "a b", "../x", "classify", "prose", "runs", "x" * 70])
def test_a_name_that_is_no_models_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        main(["classify", "--name", name, "--data", "a.csv"])
    assert "--name" in capsys.readouterr().err
