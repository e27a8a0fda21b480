import asyncio
import io
import json
import signal
import subprocess
import sys
from functools import partial

import pytest

from tests import tiny
from tests.conftest import running
from tests.tiny import NAMES
from tests.unroll.fakes import FakeServer
from unroll import AsyncClient, Client, RequestFailed, Sampling
from unroll.cli import main

GENERATE = ("generate", "--model", "letters", "--prompt", "abc", "--max-tokens", 12, "--seed", 3)


@pytest.fixture(scope="module")
def shared(tiny_models):
    with running(tiny_models) as service:
        yield service


@pytest.fixture
def service(shared):
    """The one that all tests of this file share, but for those that start one of their own."""
    return shared


@pytest.fixture
def run_at(capsys):
    def call(service, *arguments):
        code = main(["--target", service.target, *map(str, arguments)])
        return code, capsys.readouterr()

    return call


@pytest.fixture
def run(run_at, service):
    return partial(run_at, service)


def test_classify_prints_a_line_a_text(run):
    code, printed = run("classify", "--model", "mood", "good food", "bad")
    assert code == 0
    lines = printed.out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["good food", "bad"]


STROKES = "pressure,x (mm),y (mm),who\n1,2,3,ann\n4,5,6,bob\n7,8,9,ann\n"


def test_classify_reads_frames_of_a_file(run, service, tmp_path):
    """By the names of the channels; a label a sequence, or one after each frame."""
    path = tmp_path / "strokes.csv"
    path.write_text(STROKES)
    code, printed = run(
        "classify", "--model", "strokes", "--frames", path, "--sequence", "who", "--json"
    )
    assert code == 0
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert [(one["sequence"], one["input_tokens"]) for one in found] == [("ann", 2), ("bob", 1)]
    with Client(service.target) as client:
        (ann,) = client.classify("strokes", frames=[[[2, 3, 1], [8, 9, 7]]])
    assert (found[0]["label"], found[0]["probability"]) == ann.best
    code, printed = run(
        "classify", "--model", "strokes", "--frames", path, "--sequence", "who", "--stream"
    )
    lines = [line.split("\t") for line in printed.out.splitlines()]
    assert [line[:2] for line in lines] == [["ann", "0"], ["ann", "1"], ["bob", "0"]]
    assert lines[1][2] == f"{ann.best[0]} {ann.best[1]:.3f}"


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("a,b,c,who\n1,2,3,4\n", (), "has 4 columns, the model reads 3"),
        (STROKES, ("--sequence", "whose"), "has no column 'whose'"),
        ("a,b,c\n1,2,\n", (), "line 2: a number is missing"),
        ("a,b,c\n1,2,x\n", (), "'c' is 'x', no number"),
    ],
)
def test_a_file_without_frames_is_refused(run, tmp_path, text, options, says):
    path = tmp_path / "strokes.csv"
    path.write_text(text)
    code, printed = run("classify", "--model", "strokes", "--frames", path, *options)
    assert code == 2
    assert says in printed.err


def test_frames_are_for_a_model_that_reads_them(run, tmp_path):
    path = tmp_path / "strokes.csv"
    path.write_text(STROKES)
    code, printed = run("classify", "--model", "mood", "--frames", path)
    assert (code, printed.err) == (2, "model 'mood' reads texts; leave --frames\n")


def test_tag_prints_a_line_a_text_or_a_line_a_token(run):
    code, printed = run("tag", "--model", "tags", "The food is bad", "good")
    assert code == 0
    lines = [line.split() for line in printed.out.splitlines()]
    assert [[pair.split("/")[0] for pair in line] for line in lines] == [
        ["The", "food", "is", "bad"],
        ["good"],
    ]
    code, printed = run("tag", "--model", "tags", "--top", 2, "The food")
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == ["The", "food"]
    assert len(printed.out.splitlines()[0].split()) == 5


def test_fill_prints_each_text_with_its_words(run):
    code, printed = run("fill", "--model", "blank", "--top", 2, "the ___ is bad", "___")
    assert code == 0
    lines = printed.out.splitlines()
    assert [lines[0], lines[2]] == ["the ___ is bad", "___"]
    assert len(lines[1].split()) == 4


def test_generate_and_score_take_a_vector(run):
    code, printed = run("generate", "--model", "foods", "--vector", "1.5,2,3", "--max-tokens", 4)
    assert code == 0
    assert "3 tokens in" in printed.err
    code, printed = run("score", "--model", "foods", "--vector", "1.5,2,3", "P Q")
    assert code == 0
    assert float(printed.out.split()[0]) < 0


def test_score_prints_choices_the_likeliest_first(run):
    code, printed = run("score", "--model", "letters", "--choice", "d", "--choice", "ef", "abc")
    assert code == 0
    lines = [line.split() for line in printed.out.splitlines()]
    assert sorted(line[-1] for line in lines) == ["'d'", "'ef'"]
    shares = [float(line[0]) for line in lines]
    assert sum(shares) == pytest.approx(1, abs=2e-3)
    assert shares == sorted(shares, reverse=True)
    code, printed = run("score", "--model", "speller", "--source", "ab", "--choice", "P Q")
    assert code == 0, "after a source nothing need stand before a choice"
    assert printed.out.startswith("1.000  -")


def test_next_prints_the_likeliest_tokens(run):
    code, printed = run("next", "--model", "letters", "--top", 3, "abc")
    assert code == 0
    lines = [line.split(maxsplit=2) for line in printed.out.splitlines()]
    shares = [float(share) for share, _, _ in lines]
    assert (len(lines), shares) == (3, sorted(shares, reverse=True))
    code, printed = run("next", "--model", "foods", "--vector", "1,2,3")
    assert (code, len(printed.out.splitlines())) == (0, 5)


def test_embed_prints_a_vector_a_text(run):
    code, printed = run("embed", "--model", "letters", "abc", "b")
    assert code == 0
    first, second = ([float(x) for x in line.split()] for line in printed.out.splitlines())
    assert len(first) == len(second) == 13
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-4)
    code, printed = run("embed", "--model", "letters", "--tensors", "cell_0,cell_1", "abc")
    assert len(printed.out.split()) == 26
    code, printed = run("embed", "--model", "mood", "good")
    assert (code, printed.out) == (1, "")
    assert "does not embed" in printed.err


def test_generate_prints_its_answer_and_notes_how_it_ended(run):
    code, printed = run(*GENERATE)
    assert code == 0
    assert len(printed.out) == 12 + len("\n")
    assert printed.err.startswith("[length; 3 tokens in, 12 out")
    assert "seed 3" in printed.err
    _, echoed = run(*GENERATE, "--echo")
    assert echoed.out == "abc" + printed.out


def test_a_source_that_is_echoed_has_a_line_of_its_own(run):
    arguments = ("generate", "--model", "speller", "--source", "AB", "--max-tokens", 4)
    _, printed = run(*arguments, "--seed", 3)
    _, echoed = run(*arguments, "--seed", 3, "--echo")
    assert echoed.out == "ab\n" + printed.out


def test_samples_are_lines_and_their_scores_notes(run):
    arguments = ("generate", "--model", "speller", "--source", "ab", "--beam", 3, "--max-tokens", 4)
    code, printed = run(*arguments)
    assert code == 0
    assert len(printed.out.splitlines()) == 3
    assert [line.split(";")[0] for line in printed.err.splitlines()] == [
        f"[sample {number}" for number in range(3)
    ]


def test_generate_prints_log_probabilities_a_line_each(run):
    code, printed = run(
        "generate", "--model", "speller", "--source", "ab", "--max-tokens", 2, "--log-probabilities"
    )
    assert code == 0
    position, _, log_probability = printed.out.splitlines()[0].split("\t")
    assert position == "0"
    assert float(log_probability) < 0


def test_stream_tag_labels_each_line_of_its_input_as_it_comes(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the food\n\nis Good\n"))
    code, printed = run("stream-tag", "--model", "tags-online")
    assert code == 0
    lines = [line.split("\t") for line in printed.out.splitlines()]
    assert [text for text, _ in lines] == ["the", "food", "is", "Good"]
    assert all(label.split()[0] in tiny.TAGS for _, label in lines)


def test_stream_tag_begins_from_a_state_made_of_a_streams_end(run, monkeypatch, tmp_path):
    """From the shell alone: a resume token becomes a state, from which a stream goes on."""

    def labelled(text, *options):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code, printed = run("stream-tag", "--model", "tags-online", *options)
        assert code == 0
        return printed.out.splitlines()

    whole = labelled("the food is\nnot Good\n")
    assert labelled("the food is\n", "--resume-out", tmp_path / "token") == whole[:3]
    code, printed = run(
        "create-state", "half", "--model", "tags-online", "--resume-token", tmp_path / "token"
    )
    assert (code, printed.out.split()[:3]) == (0, ["half", "tags-online", "StreamTag"])
    begun = labelled("not Good\n", "--state", "half", "--allow-inexact")
    assert begun == whole[3:]
    assert run("delete-state", "half")[0] == 0


def test_classify_begins_from_a_state_made_of_a_streams_end(run, tmp_path):
    head, *rows = (line.rpartition(",")[0] for line in STROKES.splitlines())
    files = {name: tmp_path / name for name in ("whole", "first", "rest", "token")}
    for name, part in (("whole", rows), ("first", rows[:2]), ("rest", rows[2:])):
        files[name].write_text("\n".join([head, *part]))

    def labelled(name, *options):
        code, printed = run(
            "classify", "--model", "strokes", "--frames", files[name], "--stream", "--json",
            *options,
        )  # fmt: skip
        assert code == 0
        return [json.loads(line)["probability"] for line in printed.out.splitlines()]

    whole = labelled("whole")
    assert labelled("first", "--resume-out", files["token"]) == whole[:2]
    token = ("--resume-token", files["token"])
    assert run("create-state", "strokes", "--model", "strokes", *token)[0] == 0
    assert labelled("rest", "--state", "strokes") == whole[2:] != labelled("rest")
    assert run("delete-state", "strokes")[0] == 0


def test_a_resume_token_that_cannot_be_read_or_kept_is_said(run, monkeypatch, tmp_path):
    asked = ("create-state", "none", "--model", "tags-online", "--resume-token", tmp_path / "none")
    code, printed = run(*asked)
    assert (code, "none cannot be read" in printed.err) == (2, True)
    monkeypatch.setattr("sys.stdin", io.StringIO("the food\n"))
    code, printed = run("stream-tag", "--model", "tags-online", "--resume-out", tmp_path)
    assert (code, f"{tmp_path} cannot be written" in printed.err) == (2, True)
    path = tmp_path / "strokes.csv"
    path.write_text(STROKES)
    code, printed = run(
        "classify", "--model", "strokes", "--frames", path, "--sequence", "who", "--stream",
        "--resume-out", tmp_path / "token",
    )  # fmt: skip
    assert (code, "keeps the end of one sequence" in printed.err) == (2, True)


def test_what_a_stream_begins_from_is_for_streams(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("classify", "--model", "mood", "--state", "start", "good")
    assert ended.value.code == 2
    assert "--resume-out go with --stream" in capsys.readouterr().err


def test_score_prints_sum_and_mean(run):
    code, printed = run("score", "--model", "speller", "--source", "abc", "P Q")
    assert code == 0
    total, mean = (float(part.strip("(")) for part in printed.out.split()[:2])
    assert total == pytest.approx(3 * mean, abs=1e-3)


def test_models_lists_all_or_shows_one(run):
    code, printed = run("models")
    assert code == 0
    listed = [line.split()[0] for line in printed.out.splitlines() if line[0] != " "]
    assert listed == list(NAMES)
    code, printed = run("models", "mood")
    assert 'labels: "sad"' in printed.out


def test_a_number_out_of_range_is_an_error_and_no_traceback(run):
    code, printed = run("generate", "--model", "letters", "--prompt", "a", "--top-k", -1)
    assert code == 2
    assert "a number is out of range" in printed.err


def test_a_version_can_be_asked_for(client):
    assert client.classify("mood", ["good"], version="1")
    with pytest.raises(RequestFailed, match="NOT_FOUND"):
        client.classify("mood", ["good"], version="2")


def test_top_prints_a_row_for_each_model(run_at, start_service):
    service = start_service()  # where nobody else is under way
    url = f"http://127.0.0.1:{service.app.http.port}/metrics"
    code, printed = run_at(service, "top", "--once", "--interval", 0.1, "--metrics", url)
    assert code == 0
    assert "ready, 0 requests under way" in printed.out
    shown = [line.split()[1] for line in printed.out.splitlines() if line.startswith("127.0.0.1")]
    assert shown == ["ready,", *NAMES]


def test_the_connection_can_be_set_by_the_environment(service, capsys, monkeypatch):
    monkeypatch.setenv("UNROLL_CLIENT_TARGET", service.target)
    assert main(["models", "mood"]) == 0
    monkeypatch.setenv("UNROLL_ADDRESS", "127.0.0.1:9")
    assert main(["models", "mood"]) == 0, "the client's own variable comes first"
    monkeypatch.setenv("UNROLL_ADDRESS", service.target)
    monkeypatch.delenv("UNROLL_CLIENT_TARGET")
    assert main(["models", "mood"]) == 0
    monkeypatch.setenv("UNROLL_ADDRESS", "127.0.0.1:0")
    assert main(["models", "mood"]) == 2
    assert "no port to call" in capsys.readouterr().err
    monkeypatch.setenv("UNROLL_CLIENT_TARGET", service.target)
    monkeypatch.setenv("UNROLL_CLIENT_CA_CERTIFICATE", "absent.crt")
    assert main(["models", "mood"]) == 2
    assert "absent.crt cannot be read" in capsys.readouterr().err
    assert main(["--ca-certificate", "", "models", "mood"]) == 0


def test_a_token_comes_from_a_file_or_the_environment_and_is_never_shown(
    capsys, monkeypatch, tmp_path
):
    server = FakeServer(token="secret-1")
    try:
        models = ["--target", server.target, "models"]
        (tmp_path / "token").write_text("secret-1\n")
        assert main(["--token-file", str(tmp_path / "token"), *models]) == 0
        assert main(models) == 1
        assert main(["--token-file", "secret-1", *models]) == 2
        monkeypatch.setenv("UNROLL_CLIENT_TOKEN", "secret-1")
        assert main(models) == 0
        monkeypatch.setenv("UNROLL_CLIENT_TOKEN", "secret 2")
        assert main(models) == 2
    finally:
        server.stop()
    printed = capsys.readouterr()
    assert "--token-file names no file" in printed.err
    assert "secret" not in printed.out + printed.err


def test_a_refusal_is_printed_and_exits_with_one(run):
    code, printed = run("classify", "--model", "nothing", "x")
    assert code == 1
    assert "NOT_FOUND: no model 'nothing'" in printed.err


def test_options_of_the_connection_may_follow_the_command(service, capsys):
    assert main(["models", "mood", "--target", service.target, "--timeout", "20"]) == 0
    assert main(["--target", service.target, "models", "mood", "--ca-certificate", "absent"]) == 2
    assert "absent cannot be read" in capsys.readouterr().err


def test_two_ways_to_give_texts_exclude_each_other(run, capsys):
    for arguments in (["classify"], ["classify", "good", "--lines", "-"]):
        with pytest.raises(SystemExit) as left:
            run(*arguments)
        assert left.value.code == 2
        assert "give TEXT or --lines FILE" in capsys.readouterr().err


def objects(printed):
    return [json.loads(line) for line in printed.out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (
            ("classify", "--model", "mood", "good", "bad"),
            "text label probability labels input_tokens unknown_symbols",
        ),
        (("tag", "--model", "tags", "--top", 2, "The food"), "text tokens unknown_symbols"),
        (("fill", "--model", "blank", "___"), "text words input_tokens unknown_symbols"),
        (
            ("score", "--model", "speller", "--source", "ab", "P"),
            "text source log_probability tokens unknown_symbols",
        ),
        (
            ("score", "--model", "letters", "--choice", "a", "b"),
            "text choices unknown_symbols",
        ),
        (("next", "--model", "speller", "--source", "ab", "P"), "text source next_tokens"),
        (("embed", "--model", "letters", "b"), "text values input_tokens unknown_symbols"),
    ],
    ids=lambda argument: argument[0] if isinstance(argument, tuple) else "",
)
def test_json_is_an_object_for_each_answer(run, arguments, keys):
    code, printed = run(*arguments, "--json")
    assert (code, printed.err) == (0, "")
    texts = [text for text in arguments[3:] if isinstance(text, str) and text[0] not in "-a"]
    found = objects(printed)
    assert [answer["text"] for answer in found] == texts
    assert all(list(answer) == keys.split() for answer in found)


def test_json_of_generate_is_an_object_for_each_message(run):
    code, printed = run(*GENERATE, "--json", "--echo", "--log-probabilities")
    assert (code, printed.err) == (0, "")
    found = objects(printed)
    assert (found[0]["seed"], found[0]["echo"]) == (3, "abc")
    assert found[-1]["answer"]["reason"] == "length"
    assert [token["position"] for o in found for token in o["tokens"]] == list(range(12))
    assert all(token["log_probability"] < 0 for o in found for token in o["tokens"])
    _, plain = run(*GENERATE)
    assert "".join(o["text"] for o in found) == plain.out[:-1]


def test_json_of_samples_keeps_them_apart(run, monkeypatch):
    arguments = ("generate", "--model", "letters", "--samples", 3, "--max-tokens", 5, "--json")
    _, printed = run(*arguments, "--prompt", "abc", "--seed", 1)
    found = objects(printed)
    texts = ["", "", ""]
    for token in (token for o in found for token in o["tokens"]):
        texts[token.get("sample", 0)] += token["text"]
    assert not any("text" in o for o in found if any("sample" in t for t in o["tokens"]))
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\n"))
    _, printed = run(*arguments, "--lines", "-", "--seed", 1)
    (whole,) = objects(printed)
    assert sorted(sample["sample"] for sample in whole["samples"]) == [0, 1, 2]
    assert [s["text"] for s in sorted(whole["samples"], key=lambda s: s["sample"])] == texts


def test_json_of_models_lists_their_fields(run):
    _, printed = run("models", "--json")
    found = objects(printed)
    assert [model["name"] for model in found] == list(NAMES)
    assert {model["task"] for model in found} >= {"classify", "seq2seq", "tag"}
    _, printed = run("models", "mood", "--json")
    assert objects(printed)[0]["labels"] == ["sad", "glad"]


def test_json_of_stream_tag_is_an_object_for_each_token(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the food\nis\n"))
    _, printed = run("stream-tag", "--model", "tags-online", "--json")
    found = objects(printed)
    assert [(token["text"], token["position"]) for token in found] == [
        ("the", 0), ("food", 1), ("is", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("concurrency", [1, 5])
def test_lines_are_answered_in_order(run, tmp_path, client, concurrency):
    texts = [f"good food {'bad ' * (number % 7)}" for number in range(40)]
    (tmp_path / "texts").write_text("\n".join(texts))
    arguments = ("classify", "--model", "mood", "--lines", tmp_path / "texts")
    code, printed = run(*arguments, "--concurrency", concurrency, "--json")
    assert code == 0
    found = objects(printed)
    assert [(o["line"], o["text"]) for o in found] == list(enumerate(texts, 1))
    expected = [answer.best[1] for answer in client.classify("mood", texts)]
    assert [o["probability"] for o in found] == pytest.approx(expected, abs=1e-6)


def test_a_bad_line_is_reported_and_the_rest_goes_on(run, tmp_path):
    (tmp_path / "texts").write_bytes(b"good\n\nbad\n\xff\xfe\nfood")
    code, printed = run("classify", "--model", "mood", "--lines", tmp_path / "texts", "--json")
    assert code == 1
    assert [o["line"] for o in objects(printed)] == [1, 3, 5]
    failed = printed.err.splitlines()
    assert [line.split(":")[0] for line in failed] == ["line 2", "line 4"]
    assert "INVALID_ARGUMENT" in failed[0]


def test_what_no_line_could_help_ends_at_once(run, tmp_path):
    (tmp_path / "texts").write_text("good\n" * 100)
    arguments = ("--lines", tmp_path / "texts", "--concurrency", 2)
    code, printed = run("classify", "--model", "nothing", *arguments)
    assert code == 1
    assert printed.err.startswith("NOT_FOUND: no model 'nothing'")
    assert len(printed.err.splitlines()) == 1
    code, printed = run("classify", "--lines", tmp_path / "absent")
    assert code == 2
    assert "--lines" in printed.err


@pytest.mark.parametrize(
    ("model", "lines", "key"),
    [
        ("letters", ["abc", "b"], "prompt"),
        ("speller", ["ab", "abc"], "source"),
        ("foods", ["1,2,3", "2,x,3", "4,5,6"], "vector"),
    ],
)
def test_lines_of_generate_are_the_input_that_the_model_reads(run, monkeypatch, model, lines, key):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    arguments = (
        "generate",
        "--model",
        model,
        "--lines",
        "-",
        "--max-tokens",
        4,
        "--temperature",
        0,
    )
    code, printed = run(*arguments, "--json")
    bad = [number for number, line in enumerate(lines, 1) if "x" in line]
    assert code == len(bad)
    assert [o["line"] for o in objects(printed)] == [
        n for n in (1, 2, 3)[: len(lines)] if n not in bad
    ]
    for answer in objects(printed):
        assert answer[key] == lines[answer["line"] - 1]
        option = f"--{key}"
        _, alone = run("generate", "--model", model, option, answer[key], *arguments[5:])
        assert alone.out[:-1] == answer["text"]


def test_lines_are_answered_before_the_next_one_comes(service):
    """A pipe that stays open holds no answer back, and Ctrl-C ends it without a traceback."""
    with spawn(service, "classify", "--model", "mood", "--lines", "-") as process:
        for text in ("good", "bad"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert process.stdout.readline().split()[-1] == text
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""


@pytest.mark.parametrize("arguments", [("--lines", "-"), ("--lines", "-", "--json")], ids=len)
def test_a_reader_that_leaves_ends_the_command_quietly(service, arguments):
    with spawn(service, "classify", "--model", "mood", *arguments) as process:
        process.stdout.close()
        process.stdin.write("good\n")
        process.stdin.flush()
        assert process.wait(20) == 141
        assert process.stderr.read() == ""


def test_ctrl_c_ends_a_stream_without_a_traceback(service):
    arguments = ("generate", "--model", "letters", "--prompt", "a", "--max-tokens", 300)
    with spawn(service, *arguments, "--json") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.stderr.read()


def spawn(service, *arguments):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-m", "unroll", "--target", service.target, *map(str, arguments)]
    return subprocess.Popen(command, text=True, **pipes)


def test_models_are_loaded_and_unloaded(run_at, start_service):
    run = partial(run_at, start_service())
    code, printed = run("unload", "mood", "--json")
    assert code == 0
    assert objects(printed)[0] | {"reason": ""} == {
        "name": "mood", "version": "1", "state": "UNAVAILABLE", "reason": "",
    }  # fmt: skip
    assert run("classify", "--model", "mood", "good")[0] == 1
    code, printed = run("load", "mood")
    assert (code, printed.out) == (0, "mood 1  READY\n")
    assert run("classify", "--model", "mood", "good")[0] == 0
    code, printed = run("load", "nothing")
    assert code == 1
    assert printed.out == ""


def test_help_is_the_same_as_a_script_and_as_a_module(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "unroll", "--help"], capture_output=True, text=True
    )
    assert done.stdout == shown
    assert "exit codes:" in shown


def test_the_asynchronous_client_streams_tags_like_the_synchronous_one(service, client):
    async def parts():
        yield "the food"
        yield ["is", "good"]

    async def call():
        async with AsyncClient(service.target, timeout=20) as aio:
            chunks = aio.stream_tag("tags-online", parts(), top=2)
            return [token async for chunk in chunks for token in chunk.tokens]

    async def call_tag():
        async with AsyncClient(service.target, timeout=20) as aio:
            return [chunk async for chunk in aio.stream_tag("tags", parts())]

    chunks = client.stream_tag("tags-online", ["the food", ["is", "good"]], top=2)
    assert asyncio.run(call()) == [token for chunk in chunks for token in chunk.tokens]
    with pytest.raises(RequestFailed, match="call Tag"):
        asyncio.run(call_tag())


def test_the_asynchronous_client_answers_like_the_synchronous_one(service, client):
    async def call():
        async with AsyncClient(service.target, timeout=20) as aio:
            chunks = aio.generate("letters", prompt="ab", max_tokens=9, sampling=Sampling(seed=2))
            text = "".join([chunk.text async for chunk in chunks])
            classified = await aio.classify("mood", ["good"])
            scored = await aio.score("letters", ["abc"])
            others = (
                await aio.tag("tags", ["the food", ["bad"]], top=1),
                await aio.fill("blank", ["the ___"], top=3),
                await aio.score("foods", ["P"], vectors=[(1, 2, 3)]),
            )
            with pytest.raises(RequestFailed, match="NOT_FOUND"):
                await aio.get_model("nothing")
            return text, classified, scored, others, (await aio.get_model("mood")).name

    text, classified, scored, others, name = asyncio.run(call())
    chunks = client.generate("letters", prompt="ab", max_tokens=9, sampling=Sampling(seed=2))
    assert text == "".join(chunk.text for chunk in chunks)
    assert classified == client.classify("mood", ["good"])
    assert scored == client.score("letters", ["abc"])
    assert others == (
        client.tag("tags", ["the food", ["bad"]], top=1),
        client.fill("blank", ["the ___"], top=3),
        client.score("foods", ["P"], vectors=[(1, 2, 3)]),
    )
    assert name == "mood"


def test_states_are_created_listed_begun_from_and_deleted(run):
    whole = run(*GENERATE)
    code, printed = run("create-state", "start", "--model", "letters", "--prompt", "abc")
    assert code == 0
    assert printed.out.startswith("start  letters  Generate  3 tokens  ")
    arguments = ("generate", "--model", "letters", "--max-tokens", 12, "--seed", 3)
    assert run(*arguments, "--state", "start")[1].out == whole[1].out
    further = ("--state", "start", "--prompt", "d", "--ttl", 60, "--json")
    code, printed = run("create-state", "more", "--model", "letters", *further)
    made = json.loads(printed.out)
    assert (made["name"], made["input_tokens"]) == ("more", 4)
    assert made["expires"] - made["created"] == pytest.approx(60)
    assert made["unknown_symbols"] == 0
    assert [line.split()[0] for line in run("states")[1].out.splitlines()] == ["more", "start"]
    asked = ("create-state", "more", "--model", "letters", "--prompt", "a?b!", "--replace")
    assert run(*asked)[1].out.endswith("  2 symbols unknown\n")
    assert "unknown_symbols" not in json.loads(run("states", "--json")[1].out.splitlines()[0])
    assert run("states", "--model", "mood")[1].out == ""
    assert run("delete-state", "start", "more")[0] == 0
    assert run("states")[1].out == ""
    code, printed = run("delete-state", "start")
    assert (code, "no state 'start' of yours" in printed.err) == (1, True)


def test_a_generation_begins_from_something(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("generate", "--model", "letters")
    assert ended.value.code == 2
    assert "--lines or --state" in capsys.readouterr().err


def test_a_cached_prompt_is_said_to_be_one(run):
    arguments = ("generate", "--model", "letters", "--prompt", "abcdefgh" * 5, "--max-tokens", 2)
    printed = [run(*arguments, *more)[1].err for more in ((), (), ("--no-cache",))]
    assert ["40 tokens in (39 cached), 2 out" in text for text in printed] == [False, True, False]
