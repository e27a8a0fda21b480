"""Frames over Connect and WebSocket, and the inference protocol's over REST: numbers in JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import running
from tests.service.connect.conftest import UNROLL, Caller, enveloped, envelopes
from tests.service.connect.sockets import TEXT, Socket
from tests.step_models import FRAME, expected_levels, write_step_bundle

STREAM_STEP = f"{UNROLL}/StreamStep"
FRAMES = np.random.default_rng(6).normal(size=(5, FRAME)).astype(np.float32)
START = {"start": {"model": "leaky", "outputs": ["level"], "typed": True}}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models: Path = tmp_path_factory.mktemp("models")
    write_step_bundle(models)
    with running(models, front_end="envoy") as service:
        yield service.target


def typed(frame: Any) -> dict[str, Any]:
    return {"frame": {"inputs": [{"floats": frame.tolist()}]}}


def levels(responses: list[Any]) -> Any:
    results = [result for each in responses for result in each.get("results", [])]
    return np.array([result["outputs"][0]["floats"] for result in results], np.float32)


def test_frames_of_a_stream_are_answered_over_connect(target: str) -> None:
    asked = enveloped(*(json.dumps(part).encode() for part in (START, *map(typed, FRAMES))))
    answer = Caller(target).ask(STREAM_STEP, asked, content_type="application/connect+json")
    *messages, (flags, end) = envelopes(answer.body)
    read = [json.loads(message) for _, message in messages]
    assert levels(read) == pytest.approx(expected_levels(FRAMES), abs=1e-6)
    assert read[-1]["usage"]["frames"] == 5
    assert (flags, "error" in json.loads(end)) == (2, False)


def test_each_frame_is_answered_before_the_next_over_a_socket(target: str) -> None:
    opened = Socket(target, STREAM_STEP, "unroll.json")
    opened.send(START)
    for number, expected in enumerate(expected_levels(FRAMES)):
        raw = base64.b64encode(FRAMES[number].tobytes()).decode()
        opened.send({"frame": {"inputs": [{"raw": raw}]}})
        opcode, payload = opened.receive()
        assert opcode == TEXT
        assert levels([json.loads(payload)])[0] == pytest.approx(expected, abs=1e-6)
    opened.send("")
    messages, code, _ = opened.rest()
    assert (messages[-1]["usage"]["steps"], code) == (5, 1000)


def test_a_wrong_frame_is_the_last_message_and_the_close_code(target: str) -> None:
    opened = Socket(target, STREAM_STEP, "unroll.json")
    opened.send(START)
    opened.send({"frame": {"inputs": [{"floats": [1.0, 2.0]}]}})
    messages, code, reason = opened.rest()
    assert code == 4003
    assert "a step is 16" in reason
    assert messages[-1]["error"]["code"] == "invalid_argument"


def test_requests_of_a_sequence_go_on_over_rest(target: str) -> None:
    found = []
    for place, frame in enumerate(FRAMES):
        body = {
            "parameters": {"sequence_id": 3, "sequence_start": place == 0},
            "inputs": [
                {"name": "frame", "shape": [1, FRAME], "datatype": "FP32", "data": frame.tolist()}
            ],
        }
        path = "/v2/models/leaky/infer"
        answer = Caller(target).ask(
            path, json.dumps(body).encode(), content_type="application/json"
        )
        outputs = {one["name"]: one["data"] for one in json.loads(answer.body)["outputs"]}
        found.append(outputs["level"])
    assert np.array(found) == pytest.approx(expected_levels(FRAMES), abs=1e-5)
