"""Values of a vector that a caller does not know, by every way that they are said."""

import shutil
from contextlib import closing
from http.client import HTTPConnection
from json import dumps, loads
from math import nan

import numpy as np
import pytest

from service.connect.codecs import from_json
from service.engine.errors import WrongInput
from tests import tiny
from tests.service.oip.calls import Inference
from unroll import Client, RequestFailed
from unroll.cli import main as unroll
from unroll.v1 import unroll_pb2 as pb

MODEL, FIRM = "guesses", "foods"  # one that reads unknown values, and one that does not
VECTOR = [None, 2.5, 3.0]
NO_UNKNOWN = r"vector.values\[0\] is nan; .*'Water \(g\)'.* and the model reads no unknown ones"


@pytest.fixture(scope="module")
def folder(tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unknown")
    tiny.export(tiny.vec2seq(MODEL, candidates=6), folder / MODEL / "1")
    shutil.copytree(tiny_models / FIRM, folder / FIRM)
    return folder


@pytest.fixture
def target(folder, start_service):
    return start_service(models=folder, front_end="envoy").target


@pytest.fixture
def caller(target):
    with Client(target, timeout=20) as caller:
        yield caller


def written(caller, vector, model=MODEL):
    chunks = caller.generate(model, vector=vector, seed=3, max_tokens=12, min_tokens=12)
    return "".join(chunk.text for chunk in chunks)


def post(target, path, content):
    with closing(HTTPConnection(target, timeout=20)) as connection:
        connection.request("POST", path, dumps(content), {"content-type": "application/json"})
        return loads(connection.getresponse().read())


def test_what_is_unknown_says_something_else_than_nothing(caller):
    """And no pattern of its bits: an equal request gets an equal answer."""
    assert caller.get_model(MODEL).limits["unknown_values"] == 2
    text = written(caller, VECTOR)
    assert written(caller, [nan, 2.5, 3.0]) == text
    assert written(caller, [-np.float32(nan), 2.5, 3.0]) == text
    asked = [VECTOR, *([value, 2.5, 3.0] for value in (0.0, 1.0, 9.0))]
    scored = caller.score(MODEL, ["P Q R"] * 4, vectors=asked)
    assert len({row.log_probability for row in scored}) == 4


def test_all_unknown_is_refused(caller):
    with pytest.raises(
        RequestFailed, match=r"vector has 3 unknown values, .* at most 2; send more"
    ):
        written(caller, [None] * 3)
    with pytest.raises(RequestFailed, match=r"values\[1\] is -1; .* is a number from 0 to 1e\+09"):
        written(caller, [None, -1.0, 2.0])


def test_a_model_without_unknown_values_refuses_them(caller, target):
    with pytest.raises(RequestFailed, match=NO_UNKNOWN):
        written(caller, VECTOR, FIRM)
    with pytest.raises(RequestFailed, match=r"items\[0\].*" + NO_UNKNOWN):
        caller.score(FIRM, ["P"], vectors=[VECTOR])
    refused = post(target, "/v1/completions", {"model": FIRM, "vector": VECTOR})
    assert "the model reads no unknown ones" in refused["error"]["message"]


def test_score_and_a_resumed_stream_know_what_was_unknown(caller):
    known, unknown = caller.score(MODEL, ["P", "P"], vectors=[[0.0, 2.5, 3.0], VECTOR])
    assert known.log_probability != unknown.log_probability
    options = {"vector": VECTOR, "seed": 3, "max_tokens": 20, "min_tokens": 20}
    chunks = list(caller.generate(MODEL, **options, resume_every=16))
    (point, *_) = [point for chunk in chunks for point in chunk.resume_points]
    rest = "".join(chunk.text for chunk in caller.generate(MODEL, resume_token=point.token))
    assert rest
    assert "".join(chunk.text for chunk in chunks).endswith(rest)


def test_null_is_unknown_wherever_json_is_read(caller, target):
    text = written(caller, VECTOR)
    said = {"seed": 3, "max_tokens": 12, "min_tokens": 12}
    completion = post(target, "/v1/completions", {"model": MODEL, "vector": VECTOR, **said})
    assert completion["choices"][0]["text"] == text
    tensors = {"vector": VECTOR, **said}
    assert post(target, f"/v2/models/{MODEL}/generate", tensors)["text_output"] == text
    tensor = {"name": "vector", "datatype": "FP32", "shape": [3], "data": VECTOR}
    inferred = post(target, f"/v2/models/{MODEL}/infer", {"inputs": [tensor], "parameters": said})
    outputs = {output["name"]: output["data"] for output in inferred["outputs"]}
    assert outputs["text"] == [text]


def test_an_inference_tensor_says_it_by_nan(caller, target):
    with Inference(target) as inference:
        found = inference.infer(
            MODEL,
            {"vector": np.array([nan, 2.5, 3.0], np.float32)},
            parameters={"seed": 3, "max_tokens": 12, "min_tokens": 12},
        )
    assert found["text"].tolist() == [written(caller, VECTOR)]


@pytest.mark.parametrize("name", ["vector", "items"])
def test_null_in_a_list_of_numbers_is_nan_in_json_of_messages(name):
    values = {"vector": {"values": [1, None, "NaN"]}}
    message = pb.GenerateRequest if name == "vector" else pb.ScoreRequest
    content = {"model": "m", **(values if name == "vector" else {"items": [values]})}
    read = message.FromString(from_json(dumps(content).encode(), message))
    vector = read.vector if name == "vector" else read.items[0].vector
    np.testing.assert_equal(list(vector.values), [1.0, nan, nan])


@pytest.mark.parametrize(
    "text",
    ['{"stop": [null]}', '{"model": "a", "model": null}', '{"vector": {"values": {}}, "a": null}'],
)
def test_null_is_nothing_else(text):
    with pytest.raises(WrongInput, match=r"is no JSON of unroll\.v1\.GenerateRequest"):
        from_json(text.encode(), pb.GenerateRequest)


def test_a_field_that_is_null_is_left_out():
    read = pb.GenerateRequest.FromString(
        from_json(b'{"model": "m", "vector": null, "prompt": "a"}', pb.GenerateRequest)
    )
    assert (read.model, read.WhichOneof("input")) == ("m", "prompt")


def test_the_command_line_leaves_an_unknown_value_empty(caller, target, capsys):
    asked = ["generate", "--model", MODEL, "--vector", ",2.5,3", "--seed", "3"]
    asked += ["--max-tokens", "12", "--min-tokens", "12", "--target", target]
    assert unroll(asked) == 0
    assert capsys.readouterr().out.startswith(written(caller, VECTOR))
