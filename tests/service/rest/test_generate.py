"""Triton's generate extension on every task: one object in, one or many objects out."""

import asyncio

import pytest

from service.asgi.http import HttpCall
from tests.service.grpc.test_service import LONG, cancelled, engine_of, slow_engine, wait_until
from tests.service.rest.exchanges import Rest, events_of

SAID = {"max_tokens": 6, "seed": 3, "temperature": 1.0}


def generate(rest, model, content, way="generate"):
    return rest.post(f"/v2/models/{model}/{way}", content)


def stream(rest, model, content):
    reply = generate(rest, model, content, "generate_stream")
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    return events_of(reply.body)


def test_a_text_is_answered_by_a_text(rest, caller):
    expected = caller.generate("letters", prompt="abc", max_tokens=6, seed=3, temperature=1.0)
    found = generate(rest, "letters", {"text_input": "abc", "parameters": SAID}).found
    assert found["text_output"] == "".join(piece.text for piece in expected)
    assert (found["model_name"], found["model_version"]) == ("letters", "1")
    assert (found["seed"], found["output_tokens"]) == ("3", 6)
    assert len(found["tokens"]) == 6
    assert found["finish_reason"] == "length"
    beside = generate(rest, "letters", {"id": "7", "text_input": "abc", **SAID}).found
    assert beside == found | {"id": "7"}
    by_name = generate(rest, "letters", {"prompt": ["abc"], **SAID}).found
    assert by_name == found


def test_a_stream_brings_each_token_as_an_event(rest):
    whole = generate(rest, "letters", {"text_input": "abc", **SAID}).found
    events = stream(rest, "letters", {"id": "7", "text_input": "abc", "parameters": SAID})
    assert 1 < len(events) <= 6, "a reader that is behind gets several tokens at once"
    assert {event["id"] for event in events} == {"7"}
    assert "".join(event["text_output"] for event in events) == whole["text_output"]
    assert [token for event in events for token in event["tokens"]] == whole["tokens"]
    assert [event["finish_reason"] for event in events[:-1]] == [""] * (len(events) - 1)
    assert events[-1]["finish_reason"] == "length"
    assert events[0]["seed"] == "3"
    assert not [event for event in events if "triton_final_response" in event]
    fewer = stream(rest, "letters", {"text_input": "abc", **SAID, "tokens_per_message": 3})
    assert len(fewer) < 6


@pytest.mark.parametrize(
    ("model", "content", "name"),
    [
        ("speller", {"text_input": "abc", **SAID}, "text_output"),
        ("foods", {"vector": [1.0, 2, 3.5], "min_tokens": 3, **SAID}, "text_output"),
        ("tags", {"text_input": "the good food"}, "labels"),
        ("blank", {"text_input": "the ___ food", "top_words": 3}, "words"),
        ("mood.tensors", {"tokens": [1, 2, 3], "lengths": 3}, "probabilities"),
        ("letters.tensors", {"tokens": [[1, 2, 3]], "lengths": [[3]]}, "logits"),
    ],
)
def test_every_task_can_be_asked(rest, model, content, name):
    found = generate(rest, model, content)
    assert found.status == 200, found.body
    assert found.found[name]
    events = stream(rest, model, content)
    text = "".join(event[name] for event in events) if name == "text_output" else events[0][name]
    assert text == found.found[name]


def test_a_text_may_begin_from_a_state(rest, caller):
    """Whichever way it is asked; without a text from the state alone."""
    caller.create_state("rest", "letters", prompt="abc def")
    try:
        whole = generate(rest, "letters", {"text_input": "abc def gh", **SAID}).found
        after = generate(rest, "letters", {"text_input": " gh", "state": "rest", **SAID}).found
        assert after["tokens"] == whole["tokens"]
        assert after["cached_tokens"] == len("abc def") - 1
        events = stream(rest, "letters", {"text_input": " gh", "state": "rest", **SAID})
        assert [token for event in events for token in event["tokens"]] == whole["tokens"]
        alone = generate(rest, "letters", {"text_input": "abc def", **SAID}).found
        begun = generate(rest, "letters", {"state": "rest", **SAID}).found
        assert begun["tokens"] == alone["tokens"]
        infer = {"inputs": [], "parameters": {"state": "rest", **SAID}}
        outputs = rest.infer("letters", infer).found["outputs"]
        assert {each["name"]: each["data"] for each in outputs}["tokens"] == alone["tokens"]
    finally:
        caller.delete_state("rest")
    gone = generate(rest, "letters", {"text_input": " gh", "state": "rest", **SAID})
    assert (gone.status, "no state 'rest' of yours" in gone.error) == (404, True)
    wild = generate(rest, "letters", {"text_input": "abc", "preset": "wild"})
    assert (wild.status, "no preset 'wild'" in wild.error) == (400, True)


def test_one_text_has_one_label_and_several_have_a_list(rest):
    one = generate(rest, "mood", {"text_input": "good"}).found
    assert one["label"] in ("positive", "negative", *one["label"].split())
    assert len(one["probabilities"]) > 1
    two = generate(rest, "mood", {"text_input": ["good", "bad"]}).found
    assert len(two["label"]) == len(two["probability"]) == 2
    assert two["label"][0] == one["label"]


@pytest.mark.parametrize(
    ("model", "content", "words"),
    [
        ("letters", {}, "'prompt' is missing"),
        ("letters", {"text_input": 7}, "strings"),
        ("letters", {"text_input": None}, "null"),
        ("letters", {"text_input": ["a", "b"]}, "[2]"),
        ("letters", {"text_input": {"a": 1}}, "an object"),
        ("letters", {"text_input": "a", "prompt": "b"}, "twice"),
        ("letters", {"text_input": "a", "parameters": 7}, "'parameters' is 7"),
        ("letters", {"text_input": "a", "seed": 1, "parameters": {"seed": 1}}, '"seed"'),
        ("letters", {"text_input": "a", "sed": 1}, "'sed'"),
        ("letters", {"text_input": "a", "temperature": -1}, "temperature"),
        ("letters", {"text_input": "a", "stop": None}, "'stop' is null"),
        ("foods", {"text_input": "a"}, "reads no text"),
        ("foods", {"vector": [[1, 2], [3]]}, "not nested"),
        ("foods", {"vector": []}, "shape"),
        ("foods", {"vector": [1, 2, 1e39]}, "1e+39"),
        ("mood", {"text_input": [[["a"]]]}, "shape"),
    ],
)
def test_what_is_wrong_is_named_before_a_stream_begins(rest, model, content, words):
    for way in ("generate", "generate_stream"):
        reply = generate(rest, model, content, way)
        assert reply.status == 400
        assert reply.headers["content-type"] == "application/json"
        assert words in reply.error


def test_the_path_says_whether_to_stream(rest):
    content = {"text_input": "a", **SAID}
    assert generate(rest, "letters", content | {"stream": False}).status == 200
    assert len(stream(rest, "letters", content | {"stream": True})) > 1
    refused = generate(rest, "letters", content | {"stream": True})
    assert (refused.status, "generate_stream" in refused.error) == (400, True)
    assert generate(rest, "letters", content | {"stream": False}, "generate_stream").status == 400
    assert generate(rest, "nobody", content).status == 404
    assert generate(rest, "nobody", content, "generate_stream").status == 404


def test_a_caller_that_leaves_frees_its_row(service, monkeypatch):
    slow_engine(service, monkeypatch)
    engine = engine_of(service, "letters")
    content = {"text_input": "a", "max_tokens": LONG}
    with Rest(service.target).open("/v2/models/letters/generate_stream", content) as response:
        assert response.readline().startswith(b"data: ")
        assert len(engine.scheduler.rows) == 1
    wait_until(lambda: engine.is_idle)
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    wait_until(lambda: cancelled(service) == 1)
    wait_until(lambda: service.app.inflight.calls == 0)
    left = {"model": "letters", "method": "ModelStreamInfer", "code": "CANCELLED"}
    wait_until(lambda: service.metric("unroll_requests_total", **left) == 1)


def test_an_error_in_the_midst_is_the_last_event(service, monkeypatch):
    runner = engine_of(service, "letters").runner
    step, steps = runner.step, []

    def breaks(side, rows):
        steps.append(rows)
        if len(steps) > 3:
            raise RuntimeError("the graph broke")
        step(side, rows)

    monkeypatch.setattr(runner, "step", breaks)
    events = stream(Rest(service.target), "letters", {"text_input": "a", "max_tokens": 20})
    assert [event for event in events if "error" in event] == events[-1:]
    assert "text_output" in events[0]
    assert events[-1].keys() == {"error"}


def test_a_caller_that_does_not_read_is_given_up(start_service, monkeypatch):
    """Its response is cut off; what it held is free."""

    async def never(call, message):
        await call.blocked.wait()

    service = start_service(stall_seconds=0.2)
    monkeypatch.setattr(HttpCall, "blocked", asyncio.Event(), raising=False)
    monkeypatch.setattr(HttpCall, "write", never)
    reply = generate(Rest(service.target), "letters", {"text_input": "a"}, "generate_stream")
    assert reply.status == 409
    assert "nothing was read for 0.2 s" in reply.error
    engine = engine_of(service, "letters")
    wait_until(lambda: engine.is_idle and service.app.inflight.calls == 0)


def test_a_stream_counts_as_a_request_of_its_model(service):
    rest = Rest(service.target)
    stream(rest, "letters", {"text_input": "a", **SAID})
    generate(rest, "letters", {"text_input": "a", **SAID})
    (stats,) = rest.get("/v2/models/letters/stats").found["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 2
    for method in ("ModelInfer", "ModelStreamInfer"):
        labels = {"model": "letters", "method": method, "code": "OK"}
        wait_until(lambda labels=labels: service.metric("unroll_requests_total", **labels) == 1)
