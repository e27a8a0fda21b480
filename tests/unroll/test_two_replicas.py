"""Two real services as one: what the first one stops with goes on at the second, bit for bit."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time

import pytest

from service.engine.decode import GenerateEngine
from service.engine.online_tagging import OnlineTagEngine
from tests import tiny
from unroll import AsyncClient, Beam, Client, Sampling

STEP_SECONDS = 0.003
LONG = 300


@pytest.fixture
def replicas(start_service, tiny_models, tmp_path, monkeypatch):
    """Two that share their keys; the first one stops without a grace. Their steps take long."""
    for kind in (GenerateEngine, OnlineTagEngine):
        step = kind.step

        def slow(self, step=step):
            time.sleep(STEP_SECONDS)
            return step(self)

        monkeypatch.setattr(kind, "step", slow)
    for name in ("letters", "tags-online"):
        shutil.copytree(tiny_models / name, tmp_path / "models" / name)
    keys = tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    return tuple(
        start_service(models=tmp_path / "models", resume_keys=keys, grace_seconds=grace)
        for grace in (0.0, 5.0)
    )


@pytest.fixture
def target(replicas):
    return ",".join(replica.target for replica in replicas)


REQUESTS = [
    *({"sampling": Sampling(seed=seed, temperature=0.9)} for seed in range(4)),
    {"sampling": Sampling(seed=9, repetition_penalty=1.2, frequency_penalty=0.3), "samples": 3},
    {"sampling": Sampling(seed=10), "stop": ["zzzz"], "log_probabilities": True},
    {"sampling": Sampling(seed=11), "resume_every": 32, "echo": True},
    {"beam": Beam(3, 2), "max_tokens": 60},
]


def answered(replica):
    """Calls that only show whether a client is connected."""
    return replica.metric("unroll_requests_total", model="", method="ListModels", code="OK")


async def read_all(target, replicas=(), begun=None):
    """The chunks that each request got. replicas: all of which the client is connected to first.

    begun: called with the number of tokens of each so far.
    """
    received = [[] for _ in REQUESTS]

    async def read(client, number, make_request):
        options = {"prompt": "abc", "max_tokens": LONG, **make_request}
        async for chunk in client.generate("letters", **options):
            received[number].append(chunk)
            if begun:
                begun([sum(len(chunk.tokens) for chunk in chunks) for chunks in received])

    async with AsyncClient(target, timeout=60) as client:
        while not all(map(answered, replicas)):
            await client.list_models()
        await asyncio.gather(*(read(client, *each) for each in enumerate(REQUESTS)))
    return received


def whole(chunks):
    """All that a caller can compare, in an order of its own."""
    tokens = [(t.sample, t.position, t) for chunk in chunks for t in chunk.tokens]
    ends = [(e.sample, e.reason, e.output_tokens) for chunk in chunks for e in chunk.ends]
    worth = {e.sample: e.log_probability for chunk in chunks for e in chunk.ends}
    (seed,) = [chunk.seed for chunk in chunks if chunk.seed is not None]
    echo = [token for chunk in chunks for token in chunk.echo]
    (answer,) = [chunk.answer for chunk in chunks if chunk.answer]
    counts = (answer.input_tokens, answer.output_tokens, answer.unknown_symbols)
    return sorted(tokens, key=lambda t: t[:2]), sorted(ends), seed, echo, counts, worth


def test_streams_of_a_server_that_stops_are_whole(replicas, target):
    undisturbed = asyncio.run(read_all(replicas[1].target))
    stopping = threading.Thread(target=replicas[0].stop)

    def stop_once_all_have_begun(counts):
        # The beam answers nothing before its end.
        if not stopping.ident and min(counts[:-1]) >= 20:
            stopping.start()

    disturbed = asyncio.run(read_all(target, replicas, stop_once_all_have_begun))
    stopping.join(30)
    assert replicas[1].metric("unroll_streams_resumed_total", model="letters") >= 2
    for make_request, *both in zip(
        REQUESTS, map(whole, undisturbed), map(whole, disturbed), strict=True
    ):
        expected, got = both
        if "sampling" in make_request:
            assert got[2] == expected[2] == make_request["sampling"].seed
        assert got[:2] + got[3:-1] == expected[:2] + expected[3:-1]
        # A sum in another order.
        assert got[-1] == pytest.approx(expected[-1], rel=1e-12)


@pytest.mark.parametrize("kind", ["words", "texts"])
def test_a_stream_of_tags_goes_on_where_it_was(replicas, target, kind):
    words = [tiny.WORDS[(7 * n) % len(tiny.WORDS)] for n in range(120)]
    stopping = threading.Thread(target=replicas[0].stop)
    received = []

    def parts():
        for number, word in enumerate(words):
            yield [word] if kind == "words" else word
            if number % 20 == 0:
                time.sleep(0.02)

    with Client(replicas[1].target, timeout=60) as client:
        expected = [t for chunk in client.stream_tag("tags-online", parts()) for t in chunk.tokens]
    with Client(target, timeout=60) as client:
        while not all(map(answered, replicas)):
            client.list_models()
        streams = [client.stream_tag("tags-online", parts()) for _ in range(2)]
        # One of the two is at the first replica: calls go to each in turn.
        for stream in streams:
            received.append(list(next(stream).tokens))
        stopping.start()
        for tokens, stream in zip(received, streams, strict=True):
            chunks = list(stream)
            tokens += [token for chunk in chunks for token in chunk.tokens]
            assert chunks[-1].end.tokens == len(words)
    stopping.join(30)
    assert received == [expected, expected]
