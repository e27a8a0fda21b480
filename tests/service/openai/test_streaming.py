"""Events bring what a whole answer holds, as it is made."""

import asyncio
import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from service.engine.decode import GenerateEngine
from service.openai.answers import StreamedAnswer
from tests.service.grpc.test_service import engine_of, slow_engine, wait_until
from tests.service.openai.api import Api, texts_of, with_defaults

LONG = 400
# Tokens of streams that are handed over, and how long each takes.
HANDED_OVER, STEP_SECONDS = 150, 0.008
# Of an answer that nobody reads: in Envoy, in the kernel and on the way.
MOST_UNREAD_BYTES = 256 << 10

EACH = pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"prompt": ["abc", "d", "efg"], "n": 2},
        {"stop": "a", "max_tokens": 200},
        {"echo": True, "n": 2},
        {"tokens_per_message": 5},
        {"model": "speller", "source": "abcab", "seed": 3},
        {"max_tokens": 1},
    ],
    ids=["one", "choices", "prompts", "stop", "echo", "messages", "source", "one token"],
)


@EACH
def test_events_joined_are_the_whole_answer(api, fields):
    whole, events = api.complete(**fields), api.events(**fields)
    assert [text for _, text in sorted(texts_of(events).items())] == whole.texts
    ends = {}
    for event in events:
        (choice,) = event["choices"]
        assert choice["index"] not in ends, "nothing comes after a choice's end"
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    reasons = {c["index"]: c["finish_reason"] for c in whole.content["choices"]}
    assert ends == reasons


def test_every_event_is_a_part_of_one_answer(api):
    events = api.events(tokens_per_message=1)
    assert len(events) >= 12
    heads = [
        {name: event[name] for name in event if name not in ("choices", "created")}
        for event in events
    ]
    assert heads == [heads[0]] * len(heads)
    assert heads[0]["object"] == "text_completion"
    assert (heads[0]["model"], set(heads[0])) == (
        "letters", {"id", "object", "model", "system_fingerprint"},
    )  # fmt: skip


def test_tokens_come_one_by_one(api):
    events = api.events(tokens_per_message=1)
    assert {len(text) for text in map(only_text, events[:-1])} == {1}


def test_tokens_wake_no_task_where_there_is_room(service, monkeypatch):
    """Of several prompts too, whose calls write side by side."""
    slow_engine(service, monkeypatch)
    written, write_now = [], StreamedAnswer.write_now

    def counts(self, number, response):
        written.append(number)
        write_now(self, number, response)

    monkeypatch.setattr(StreamedAnswer, "write_now", counts)
    api, fields = Api(service.target), {"prompt": ["abc", "d"], "max_tokens": 40}
    events = api.events(**fields, tokens_per_message=1)
    assert written.count(0) > 20
    assert written.count(1) > 20
    assert [text for _, text in sorted(texts_of(events).items())] == api.complete(**fields).texts


def only_text(event):
    (choice,) = event["choices"]
    return choice["text"]


def test_usage_comes_last_where_it_is_asked_for(api):
    fields = {"prompt": ["abc", "de"], "n": 2}
    *events, last = api.events(**fields, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == api.complete(**fields).content["usage"]
    assert all(event["usage"] is None for event in events)
    without = api.events(**fields, stream_options={"include_usage": False})
    assert not any("usage" in event for event in without)


@pytest.mark.parametrize("tokens_per_message", [1, 5])
def test_log_probabilities_of_events_joined_are_those_of_the_whole(api, tokens_per_message):
    fields = {"n": 2, "logprobs": 2, "echo": True}
    whole = api.complete(**fields).content["choices"]
    found = [{name: [] for name in choice["logprobs"]} for choice in whole]
    for event in api.events(**fields, tokens_per_message=tokens_per_message):
        (choice,) = event["choices"]
        for name, values in choice["logprobs"].items():
            found[choice["index"]][name] += values
    assert found == [choice["logprobs"] for choice in whole]


def test_resume_tokens_come_on_the_way(api):
    whole = api.complete(max_tokens=60).texts[0]
    points = [
        (choice["next_position"], choice["resume_token"])
        # One event a token: of several points in one event, the last stands for all.
        for event in api.events(max_tokens=60, resume_every=16, tokens_per_message=1)
        for choice in event["choices"]
        if "resume_token" in choice
    ]
    assert [position for position, _ in points] == [16, 32, 48]
    for position, token in points:
        events = api.events(model="letters", resume_token=token)
        assert texts_of(events) == {0: whole[position:]}


def test_a_resumed_sample_keeps_its_index_in_events(api):
    third = api.complete(n=3, max_tokens=8, resume_at_end=True).content["choices"][2]
    fields = {"model": "letters", "resume_token": third["resume_token"], "max_tokens": 4}
    assert texts_of(api.events(**fields)) == {2: api.complete(n=3).texts[2][8:]}


def test_text_of_any_kind_is_one_line_of_ascii(api):
    """Whatever a client takes for the end of a line."""
    with api.stream(model="letters", prompt="é\u2028ab", echo=True, max_tokens=4) as events:
        lines = list(events)  # decodes as ASCII
    assert len(json.loads(lines[0])["choices"][0]["text"]) >= 4


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_caller_that_leaves_frees_its_rows(service, monkeypatch, is_streamed):
    slow_engine(service, monkeypatch)
    engine = engine_of(service, "letters")
    with sent(service, prompt=["abc", "d"], n=2, max_tokens=LONG, stream=is_streamed):
        wait_until(lambda: len(engine.scheduler.rows) == 4)
    wait_until(lambda: engine.is_idle)
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    wait_until(lambda: service.app.inflight.calls == 0)


@contextmanager
def sent(service, **fields):
    """A request of which nothing is read; its caller leaves at the end of the block."""
    host, _, port = service.target.rpartition(":")
    body = json.dumps(with_defaults(fields)).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        yield connection


@pytest.mark.parametrize("is_streamed", [True, False])
def test_an_answer_that_nobody_reads_is_broken_off(start_service, is_streamed):
    """Neither its call, nor what follows a call, is kept longer than the service waits."""
    service = start_service(stall_seconds=0.5)
    much = {"n": 64, "max_tokens": LONG, "logprobs": 20, "stream": is_streamed}

    async def answers():
        running = [task.get_coro() for task in asyncio.all_tasks()]
        names = [getattr(each, "__qualname__", "") for each in running]
        return names.count("Link._serve")

    with sent(service, **much) as connection:
        wait_until(lambda: service.run(answers()) == 1)
        wait_until(lambda: service.run(answers()) == 0, seconds=60)
        assert service.app.inflight.calls == 0
        assert service.app.budget.used == 0
        # A window that hardly opens would be probed at ever longer intervals.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        connection.settimeout(60)
        received = b""
        while part := connection.recv(1 << 20):
            received += part
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert len(received) < MOST_UNREAD_BYTES
    assert b"[DONE]" not in received
    assert b"usage" not in received


def test_an_engine_that_breaks_ends_the_stream_with_an_error(service, monkeypatch, caplog):
    slow_engine(service, monkeypatch)

    def breaks(side, rows):
        raise RuntimeError("broken on purpose")

    with caplog.at_level(logging.CRITICAL), Api(service.target).stream(max_tokens=LONG) as events:
        next(events)
        monkeypatch.setattr(engine_of(service, "letters").runner, "step", breaks)
        *_, last = list(events)
    error = json.loads(last)["error"]
    assert error["type"] == "server_error"
    assert error["message"]


@pytest.fixture
def replicas(start_service, tmp_path):
    """Two services that share their keys, the first of which stops without a grace."""
    keys = tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    return [start_service(resume_keys=keys, grace_seconds=grace) for grace in (0.0, 5.0)]


@pytest.fixture
def slowly(monkeypatch):
    step = GenerateEngine.step

    def slow(self):
        time.sleep(STEP_SECONDS)
        return step(self)

    monkeypatch.setattr(GenerateEngine, "step", slow)


def test_a_stream_that_is_handed_over_goes_on_elsewhere(replicas, slowly):
    stopping, other = (Api(service.target) for service in replicas)
    whole = other.complete(n=2, max_tokens=HANDED_OVER).texts
    with stopping.stream(n=2, max_tokens=HANDED_OVER) as events:
        found = [next(events)]
        assert replicas[0].stop()
        found += events
    assert found.pop() == "[DONE]"
    events = list(map(json.loads, found))
    assert not any(c["finish_reason"] for event in events for c in event["choices"])
    tokens = {
        choice["index"]: choice["resume_token"]
        for event in events
        for choice in event["choices"]
        if "resume_token" in choice
    }
    begun = texts_of(events)
    for index, text in enumerate(whole):
        rest = other.events(model="letters", resume_token=tokens[index])
        assert 0 < len(begun[index]) < HANDED_OVER
        assert begun[index] + texts_of(rest)[index] == text


def test_a_whole_answer_that_is_handed_over_has_its_resume_token(replicas, slowly):
    stopping, other = (Api(service.target) for service in replicas)
    engine = engine_of(replicas[0], "letters")
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(stopping.complete, max_tokens=HANDED_OVER)
        wait_until(lambda: engine.scheduler.rows)
        assert replicas[0].stop()
        (choice,) = answering.result().content["choices"]
    assert choice["finish_reason"] is None
    rest = other.complete(model="letters", resume_token=choice["resume_token"])
    assert choice["text"] + rest.texts[0] == other.complete(max_tokens=HANDED_OVER).texts[0]
