"""The bench runs and compares like with like; its figures are nobody's verdict."""

import json
import os

import pytest

from bench.__main__ import main
from bench.doors import (
    BARE_GRAPH,
    CLASSIFY,
    ECHO_CALL,
    ECHO_MESSAGE,
    EVENTS,
    GENERATE,
    INFER,
    STREAM_INFER,
)
from bench.kernels import BARE, ENGINE, WATCHED
from bench.servers import Server, start_peer
from bench.settings import PROMPT
from bench.streams import cached, of_foods, single
from bench.workers import CALLED, STREAMED
from unroll import Client, Sampling


@pytest.fixture(scope="module")
def whole_run(tiny_models, tmp_path_factory):
    """(the folder it wrote, its arguments): every part, with tiny numbers."""
    folder = tmp_path_factory.mktemp("docs")
    names = {"--bundle": "letters", "--classifier": "mood", "--vectors": "foods"}
    arguments = [a for flag, name in names.items() for a in (flag, str(tiny_models / name / "1"))]
    assert main([*arguments, "--quick", "--output", str(folder)]) == 0
    return folder, arguments


def test_every_part_is_measured(whole_run):
    """A quick run of all parts leaves a page, its plots and figures above zero."""
    folder, _ = whole_run
    result = json.loads((folder / "bench" / "results.json").read_text())
    found = result["findings"]
    streams = [(row["what"], row["streams"]) for row in found["streams"]]
    servers = (
        "unroll fp32", "unroll int8", "one loop a request", "bare step fp32", "bare step int8",
    )  # fmt: skip
    fewer = [(what, 1) for what in servers]
    beside = (single("unroll int8"), cached("unroll int8"))
    more = [(w, 3) for w in (*servers[:3], *beside, *servers[3:], of_foods("unroll fp32"))]
    assert streams == fewer + more
    assert all(row["tokens_per_second"] > 0 for row in found["kernels"]["loops"])
    assert {row["what"] for row in found["kernels"]["loops"]} == {BARE, ENGINE, WATCHED}
    assert found["joining"][0]["first_token_ms"] > 0
    assert found["joining"][0]["cached_first_token_ms"] > 0
    assert [row["precision"] for row in found["prefixes"]] == ["fp32", "int8"]
    assert all(row["without_us"] > 0 and row["hit_ms"] > 0 for row in found["prefixes"])
    assert [(row["clients"], row["texts"]) for row in found["predict"]] == [
        (1, 1), (1, 32), (3, 1), (3, 32),
    ]  # fmt: skip
    assert found["memory"]["started"] > 0
    doors = {(row["unit"], row["what"]): row["figures"] for row in found["doors"]["rows"]}
    for unit in (INFER, CLASSIFY, STREAM_INFER):
        assert doors[unit, "grpcio"]["least"]["per_second"] > 0
    assert doors[ECHO_CALL, "grpc.aio"]["median"]["client_cpu_us"] > 0
    assert doors[ECHO_MESSAGE, "grpc.aio"]["median"]["per_second"] > 0
    assert doors[CLASSIFY, BARE_GRAPH]["median"]["server_cpu_us"] > 0
    if "envoy" not in found["doors"]["skipped"]:
        assert doors[GENERATE, "envoy"]["median"]["per_second"] > 0
        assert doors[EVENTS, "envoy"]["median"]["per_second"] > 0
    # What cannot run here is named, and nothing is missing unsaid.
    measured = {what for _, what in doors} | found["doors"]["skipped"].keys()
    assert measured == {"grpc.aio", "pyvoy", "envoy", "grpcio", "Triton", BARE_GRAPH}
    workers = {(row["unit"], row["workers"]): row["figures"] for row in found["workers"]["rows"]}
    assert workers.keys() == {(unit, count) for unit in (STREAMED, CALLED) for count in (1, 2)}
    assert all(figures["median"]["per_second"] > 0 for figures in workers.values())
    assert found["workers"]["resident_bytes"]["2"] > found["workers"]["resident_bytes"]["1"]
    (resident,) = [row["figures"]["median"]["resident_bytes"] for row in found["start"]["rows"]
                   if row["what"] == "grpcio"]  # fmt: skip
    assert resident > 1e6
    page = (folder / "bench.md").read_text()
    for name in ("tokens_per_second", "server_cpu", "first_token", "inter_token"):
        assert (folder / "bench" / f"{name}.png").stat().st_size > 1000
        assert f"(bench/{name}.png)" in page


def test_a_part_of_a_run_prints_a_table_and_json_and_writes_nothing(
    whole_run, capsys, monkeypatch, tmp_path
):
    _, arguments = whole_run
    root = os.getcwd()
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--quick", "--only", "kernels"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| engine loop without network") for line in table)
    result = json.loads(last)
    assert result["findings"]["kernels"]["product_gflops"]["16"] > 0
    assert result["findings"]["streams"] == []
    assert not list(tmp_path.iterdir())


def test_both_servers_make_the_same_tokens(tiny_models, client):
    """The alternative does the same work: the same graph, draws and text."""
    make_request = {
        "prompt": PROMPT,
        "max_tokens": 100,
        "sampling": Sampling(temperature=0.8, top_k=0, top_p=0.95, seed=6),
    }
    with (
        start_peer(tiny_models / "letters" / "1", 1) as peer,
        Client(peer.target, timeout=20) as other,
    ):
        # It has no last message, which a stream that is carried on with would wait for.
        pieces = other.generate("letters", failover=False, **make_request)
        theirs = [token for piece in pieces for token in piece.tokens]
    ours = [t for piece in client.generate("letters", **make_request) for t in piece.tokens]
    assert theirs == ours
    assert len(ours) == 100


def test_a_server_that_does_not_start_is_named():
    with pytest.raises(RuntimeError, match="broken ended before it was ready"):
        Server("broken", ["service", "serve", "--models", "/no/such/folder"])
