import asyncio
import io

import pytest

from tests import tiny
from tests.tiny import NAMES
from tests.unroll.fakes import FakeServer
from unroll import AsyncClient, RequestFailed, Sampling
from unroll.__main__ import main


@pytest.fixture
def run(service, capsys):
    def call(*arguments):
        code = main(["--target", service.target, *map(str, arguments)])
        return code, capsys.readouterr()

    return call


def test_classify_prints_a_line_a_text(run):
    code, printed = run("classify", "--model", "mood", "good food", "bad")
    assert code == 0
    lines = printed.out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["good food", "bad"]


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
    assert "3 tokens in" in printed.out
    code, printed = run("score", "--model", "foods", "--vector", "1.5,2,3", "P Q")
    assert code == 0
    assert float(printed.out.split()[0]) < 0


def test_generate_prints_the_prompt_its_continuation_and_how_it_ended(run):
    code, printed = run(
        "generate", "--model", "letters", "--prompt", "abc", "--max-tokens", 12, "--seed", 3
    )
    assert code == 0
    text, end = printed.out.rsplit("\n[", 1)
    assert text.startswith("abc")
    assert len(text) == 15
    assert end.startswith("length; 3 tokens in, 12 out")
    assert "seed 3" in end


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


def test_score_prints_sum_and_mean(run):
    code, printed = run("score", "--model", "speller", "--source", "abc", "P Q")
    assert code == 0
    total, mean = (float(part.strip("(")) for part in printed.out.split()[:2])
    assert total == pytest.approx(3 * mean, abs=1e-3)


def test_models_lists_all_or_tells_of_one(run):
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


def test_top_prints_a_row_for_each_model(run, service):
    url = f"http://127.0.0.1:{service.app.http.port}/metrics"
    code, printed = run("top", "--once", "--interval", 0.1, "--metrics", url)
    assert code == 0
    assert "ready, 0 requests under way" in printed.out
    shown = [line.split()[1] for line in printed.out.splitlines() if line.startswith("127.0.0.1")]
    assert shown == ["ready,", *NAMES]


def test_the_connection_can_be_set_by_the_environment(service, capsys, monkeypatch):
    monkeypatch.setenv("UNROLL_CLIENT_TARGET", service.target)
    assert main(["models", "mood"]) == 0
    monkeypatch.setenv("UNROLL_CLIENT_CA_CERTIFICATE", "absent.crt")
    assert main(["models", "mood"]) == 2
    assert "absent.crt cannot be read" in capsys.readouterr().err
    assert main(["--ca-certificate", "", "models", "mood"]) == 0


def test_a_token_comes_from_a_file_or_the_environment_and_is_never_shown(
    capsys, monkeypatch, tmp_path
):
    server = FakeServer(token="secret-1")
    try:
        ask = ["--target", server.target, "models"]
        (tmp_path / "token").write_text("secret-1\n")
        assert main(["--token-file", str(tmp_path / "token"), *ask]) == 0
        assert main(ask) == 1
        assert main(["--token-file", "secret-1", *ask]) == 2
        monkeypatch.setenv("UNROLL_CLIENT_TOKEN", "secret-1")
        assert main(ask) == 0
        monkeypatch.setenv("UNROLL_CLIENT_TOKEN", "secret 2")
        assert main(ask) == 2
    finally:
        server.stop()
    printed = capsys.readouterr()
    assert "--token-file names no file" in printed.err
    assert "secret" not in printed.out + printed.err


def test_a_refusal_is_printed_and_exits_with_one(run):
    code, printed = run("classify", "--model", "nothing", "x")
    assert code == 1
    assert "NOT_FOUND: no model 'nothing'" in printed.err


def test_the_asynchronous_client_streams_tags_like_the_synchronous_one(service, client):
    async def parts():
        yield "the food"
        yield ["is", "good"]

    async def ask():
        async with AsyncClient(service.target, timeout=20) as aio:
            pieces = aio.stream_tag("tags-online", parts(), top=2)
            return [token async for piece in pieces for token in piece.tokens]

    async def ask_wrongly():
        async with AsyncClient(service.target, timeout=20) as aio:
            return [piece async for piece in aio.stream_tag("tags", parts())]

    pieces = client.stream_tag("tags-online", ["the food", ["is", "good"]], top=2)
    assert asyncio.run(ask()) == [token for piece in pieces for token in piece.tokens]
    with pytest.raises(RequestFailed, match="call Tag"):
        asyncio.run(ask_wrongly())


def test_the_asynchronous_client_answers_like_the_synchronous_one(service, client):
    async def ask():
        async with AsyncClient(service.target, timeout=20) as aio:
            pieces = aio.generate("letters", prompt="ab", max_tokens=9, sampling=Sampling(seed=2))
            text = "".join([piece.text async for piece in pieces])
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

    text, classified, scored, others, name = asyncio.run(ask())
    pieces = client.generate("letters", prompt="ab", max_tokens=9, sampling=Sampling(seed=2))
    assert text == "".join(piece.text for piece in pieces)
    assert classified == client.classify("mood", ["good"])
    assert scored == client.score("letters", ["abc"])
    assert others == (
        client.tag("tags", ["the food", ["bad"]], top=1),
        client.fill("blank", ["the ___"], top=3),
        client.score("foods", ["P"], vectors=[(1, 2, 3)]),
    )
    assert name == "mood"
