"""The bench runs and compares like with like; its figures are nobody's verdict."""

import json
import sys

import pytest

from bench import streams
from bench.streams import PROMPT, Server
from client import Client, Sampling


def test_the_bench_prints_a_table_and_json(tiny_models, capsys, monkeypatch):
    arguments = ["--bundle", str(tiny_models / "letters" / "1")]
    arguments += ["--streams", "1", "3", "--rounds", "1", "--tokens", "8"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    monkeypatch.setattr(streams, "BARE_SECONDS", 0.1)
    assert streams.main() == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| unroll |") for line in table) == 2
    result = json.loads(last)
    assert [(row["what"], row["streams"]) for row in result["measured"]] == [
        ("unroll", 1),
        ("one loop a request", 1),
        ("unroll", 3),
        ("one loop a request", 3),
    ]
    assert all(row["tokens_per_second"] > 0 for row in result["measured"])
    assert result["bare_step_tokens_per_second"].keys() == {"1", "3"}


def test_both_servers_make_the_same_tokens(tiny_models, client):
    """The alternative does the same work: the same graph, draws and text."""
    peer = Server("peer", streams._peer_command(tiny_models / "letters" / "1", 1))
    wish = {"prompt": PROMPT, "max_tokens": 100, "sampling": Sampling(0.8, 0, 0.95, seed=6)}
    try:
        with Client(peer.target, timeout=20) as other:
            theirs = [t for piece in other.generate("letters", **wish) for t in piece.tokens]
    finally:
        peer.stop()
    ours = [t for piece in client.generate("letters", **wish) for t in piece.tokens]
    assert theirs == ours
    assert len(ours) == 100


def test_a_server_that_does_not_start_is_named():
    with pytest.raises(RuntimeError, match="broken ended before it was ready"):
        Server("broken", ["service", "serve", "--models", "/no/such/folder"])
