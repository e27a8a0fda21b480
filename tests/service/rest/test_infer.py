"""Inference over REST: the answers of gRPC, in JSON and in binary, and refusals that say why."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest

from tests.service.oip.calls import ask, raw_of, read
from tests.service.rest.exchanges import Rest, texts

TENSORS = {"tokens": [[1, 2, 3], [4, 5, 0]], "lengths": [[3], [2]]}


def ids(**parts):
    return {
        "inputs": [
            {
                "name": name,
                "datatype": "INT64",
                "shape": list(np.shape(rows)),
                "data": np.reshape(rows, -1).tolist(),
            }
            for name, rows in TENSORS.items()
        ],
        **parts,
    }


def in_binary(inputs, **parts):
    """A body and its header: JSON, then each array of ``inputs``, by name."""
    tensors, tail = [], b""
    for name, array in inputs.items():
        raw = raw_of(array)
        datatype = {"O": "BYTES", "i": "INT64", "f": "FP32"}[array.dtype.kind]
        tensors.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        tail += raw
    head = json.dumps({"inputs": tensors, **parts}).encode()
    return head + tail, {"Inference_Header_Content_Length": str(len(head))}


def outputs_of(reply):
    """Arrays by name; BYTES as texts."""
    found, place = {}, 0
    for output in reply.found["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = np.reshape(output["data"], output["shape"])
            continue
        raw = reply.tail[place : place + size]
        place += size
        if output["datatype"] == "BYTES":
            found[output["name"]] = _split(raw, output["shape"])
        else:
            dtype = {"FP32": "<f4", "INT64": "<i8"}[output["datatype"]]
            found[output["name"]] = np.frombuffer(raw, dtype).reshape(output["shape"])
    assert place == (len(reply.tail) if place else 0)
    return found


def _split(raw, shape):
    elements = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        elements.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return np.reshape(elements, shape)


def expect_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if array.dtype.kind == "f":
            found[name] = np.asarray(found[name], array.dtype)
        np.testing.assert_array_equal(found[name], array)


# -- answers -----------------------------------------------------------------------------------


def test_answers_are_those_of_grpc(rest, inference):
    expected = inference.infer("mood", {"text": [["the good food"], ["bad"]]})
    reply = rest.infer("mood", {"id": "7", "inputs": [texts("the good food", "bad")]})
    assert reply.status == 200
    assert (reply.found["model_name"], reply.found["model_version"]) == ("mood", "1")
    assert reply.found["id"] == "7"
    assert reply.found["parameters"] == {"unknown_symbols": 0}
    expect_same(outputs_of(reply), expected)
    tensors = rest.infer("mood.tensors", ids())
    expect_same(outputs_of(tensors), inference.infer("mood.tensors", TENSORS))
    assert [type(value) for value in tensors.found["outputs"][0]["data"]] == [float] * 4


@pytest.mark.parametrize("form", ["json", "binary", "mixed"])
@pytest.mark.parametrize("wanted", ["json", "binary", "mixed"])
def test_every_form_in_gives_every_form_out(rest, inference, form, wanted):
    """Whatever is JSON and whatever is binary, the numbers are the same."""
    expected = inference.infer("mood.tensors", TENSORS)
    parts = {
        "json": {},
        "binary": {"parameters": {"binary_data_output": True}},
        "mixed": {
            "outputs": [
                {"name": "logits", "parameters": {"binary_data": True}},
                {"name": "probabilities"},
            ]
        },
    }[wanted]
    arrays = {name: np.array(rows) for name, rows in TENSORS.items()}
    if form == "json":
        reply = rest.infer("mood.tensors", ids(**parts))
    elif form == "binary":
        body, headers = in_binary(arrays, **parts)
        reply = rest.infer("mood.tensors", body, **headers)
    else:
        reply = _with_json_lengths(rest, arrays, parts)
    assert reply.status == 200, reply.body
    forms = {o["name"]: "data" in o for o in reply.found["outputs"]}
    assert (
        set(forms.values()) == {"json": {True}, "binary": {False}, "mixed": {True, False}}[wanted]
    )
    expect_same(outputs_of(reply), expected)


def _with_json_lengths(rest, arrays, parts):
    raw = raw_of(arrays["tokens"])
    tokens, lengths = ids()["inputs"]
    del tokens["data"]
    tokens["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [lengths, tokens], **parts}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    return rest.infer("mood.tensors", head + raw, **length)


def test_texts_come_and_go_in_binary(rest, inference):
    array = np.array([[b"the good food"], ["schön".encode()]], dtype=object)
    body, headers = in_binary({"text": array}, parameters={"binary_data_output": True})
    expected = inference.infer("tags", {"text": [["the good food"], ["schön"]]})
    expect_same(outputs_of(rest.infer("tags", body, **headers)), expected)
    mixed = {"outputs": [{"name": "tokens"}]}
    body, headers = in_binary({"text": array}, **mixed)
    reply = rest.infer("tags", body, **headers)
    assert reply.headers["content-type"] == "application/json"
    assert outputs_of(reply)["tokens"].tolist() == expected["tokens"].tolist()


def test_nested_data_is_the_same_as_flat(rest):
    nested = ids()
    for tensor, rows in zip(nested["inputs"], TENSORS.values(), strict=True):
        tensor["data"] = rows
    flat = rest.infer("mood.tensors", ids()).found["outputs"]
    assert rest.infer("mood.tensors", nested).found["outputs"] == flat


def test_compressed_bodies_are_read_and_written(rest):
    many = {"inputs": [texts(*["the good food was bad"] * 60)]}
    plain = json.dumps(many).encode()
    expected = rest.infer("tags", many)
    for name, packed, unpack in (
        ("gzip", gzip.compress(plain), gzip.decompress),
        ("deflate", zlib.compress(plain), zlib.decompress),
    ):
        reply = rest.infer("tags", packed, content_encoding=name, accept_encoding=name)
        assert reply.status == 200
        assert reply.headers["content-encoding"] == name
        assert reply.headers["vary"] == "accept-encoding"
        assert len(reply.body) < len(expected.body)
        assert unpack(reply.body) == expected.body
    assert "content-encoding" not in expected.headers
    assert rest.infer("tags", plain, content_encoding="identity").body == expected.body
    assert (
        "content-encoding"
        not in rest.infer("mood", {"inputs": [texts("good")]}, accept_encoding="gzip").headers
    )


def test_a_large_answer_comes_whole(rest, inference):
    """Of many parts, each way: 9,000 numbers and twice as many texts."""
    rows = ["the good food was bad " * 12] * 150
    expected = inference.infer("tags", {"text": [[row] for row in rows]})
    assert expected["probabilities"].size == 150 * 60
    in_json = rest.infer("tags", {"inputs": [texts(*rows)]})
    assert len(in_json.body) > 3 * 65_536
    expect_same(outputs_of(in_json), expected)
    everything = {"parameters": {"binary_data_output": True}}
    in_binary = rest.infer("tags", {"inputs": [texts(*rows)], **everything})
    expect_same(outputs_of(in_binary), expected)


def test_a_bomb_and_a_broken_body_are_refused(rest):
    bomb = gzip.compress(bytes(50_000_000))
    assert rest.infer("mood", bomb, content_encoding="gzip").status == 413
    assert rest.infer("mood", b"x" * 2_000_000).status == 413
    for encoding, packed, status in (
        ("gzip", b"not zipped", 400), ("gzip", gzip.compress(b"{}")[:-9], 400), ("br", b"{}", 501),
    ):  # fmt: skip
        assert rest.infer("mood", packed, content_encoding=encoding).status == status


# -- parameters --------------------------------------------------------------------------------


def test_parameters_reach_the_model_however_they_are_written(rest, inference):
    prompt = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["abc"]}
    said = {"max_tokens": 6, "seed": 3, "temperature": 1.0}
    expected = read(inference.stub.ModelInfer(ask("letters", {"prompt": ["abc"]}, parameters=said)))
    for parameters in (said, {name: str(value) for name, value in said.items()}):
        reply = rest.infer("letters", {"inputs": [prompt], "parameters": parameters})
        assert reply.status == 200
        assert reply.found["parameters"]["seed"] == "3"
        assert outputs_of(reply)["tokens"].tolist() == expected["tokens"].tolist()
    banned = sorted(set(expected["tokens"].tolist()))
    reply = rest.infer(
        "letters", {"inputs": [prompt], "parameters": said | {"banned_tokens": banned}}
    )
    assert not set(outputs_of(reply)["tokens"].tolist()) & set(banned)
    largest = {"max_tokens": 1, "seed": 2**64 - 1}
    found = rest.infer("letters", {"inputs": [prompt], "parameters": largest}).found
    assert found["parameters"]["seed"] == str(2**64 - 1)


def test_a_sequence_goes_on_by_number_or_text(service, inference):
    rest = Rest(service.target)

    def step(text, **flags):
        reply = rest.infer("tags-online", {"inputs": [texts(text)], "parameters": flags})
        assert reply.status == 200, reply.body
        return outputs_of(reply)["probabilities"].tolist()

    for name in (7, "seven"):
        step("the good", sequence_id=name, sequence_start=True)
        last = step("food", sequence_id=name, sequence_end=True)
        assert last != step("food")
    with_whole = outputs_of(rest.infer("tags-online", {"inputs": [texts("the good food")]}))
    np.testing.assert_allclose(last[0], with_whole["probabilities"][0, -1:], rtol=1e-5)
    gone = rest.infer("tags-online", {"inputs": [texts("food")], "parameters": {"sequence_id": 7}})
    assert gone.status == 400


def test_classification_priority_and_timeout_are_understood(rest):
    classes = {"name": "probabilities", "parameters": {"classification": 2}}
    content = {
        "inputs": [texts("good")],
        "outputs": [classes],
        "parameters": {"priority": 2, "timeout": 5_000_000},
    }
    (output,) = rest.infer("mood", content).found["outputs"]
    assert output["datatype"] == "BYTES"
    assert [len(each.split(":")) for each in output["data"]] == [3, 3]
    late = content | {"parameters": {"timeout": 1}}
    assert rest.infer("mood", late).status == 504


def test_what_clients_send_beside_the_protocol_is_taken(rest):
    """KServe repeats the model's name, MLServer names its codec, both send nulls."""
    content = {
        "id": None,
        "model_name": "mood",
        "parameters": {"content_type": "str"},
        "inputs": [texts("good", parameters={"content_type": "str"})],
        "outputs": None,
    }
    assert rest.infer("mood", content).status == 200


def test_versions_are_part_of_the_path(rest):
    content = {"inputs": [texts("good")]}
    assert rest.post("/v2/models/mood/versions/1/infer", content).status == 200
    assert rest.post("/v2/models/mood/versions/2/infer", content).status == 404
    assert rest.infer("nobody", content).status == 404


# -- refusals ----------------------------------------------------------------------------------


def tensor(**parts):
    return {"name": "tokens", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]} | parts


LENGTHS = {"name": "lengths", "datatype": "INT64", "shape": [1], "data": [2]}
WRONG = {
    "no inputs": ({}, "'tokens' is missing"),
    "inputs of another kind": ({"inputs": {"a": 1}}, "list of objects"),
    "an input of another kind": ({"inputs": [7]}, "an object"),
    "an unknown name": ({"inputs": [], "input": []}, '"input"'),
    "an unknown name of an input": ({"inputs": [tensor(dtype=1)]}, '"dtype"'),
    "an unknown input": ({"inputs": [tensor(name="x")]}, "'x'"),
    "no name": ({"inputs": [tensor(name=None)]}, "''"),
    "a name of another kind": ({"inputs": [tensor(name=7)]}, "'name' is 7"),
    "no shape": ({"inputs": [tensor(shape=None)]}, "'shape' is missing"),
    "a shape of text": ({"inputs": [tensor(shape=["1", 2])]}, '"1"'),
    "a shape of truth": ({"inputs": [tensor(shape=[True, 2])]}, "true"),
    "a huge shape": ({"inputs": [tensor(shape=[2**80, 2])]}, "1208925"),
    "a negative shape": ({"inputs": [tensor(shape=[-1, 2]), LENGTHS]}, "[-1, 2]"),
    "a shape of more": ({"inputs": [tensor(shape=[2**31, 2**31]), LENGTHS]}, "no request"),
    "another count": ({"inputs": [tensor(shape=[1, 3]), LENGTHS]}, "its shape takes 3"),
    "ragged data": ({"inputs": [tensor(data=[[1], [2, 3]])]}, "not nested"),
    "data nested otherwise": ({"inputs": [tensor(data=[[1], [2]])]}, "not nested"),
    "data nested too deeply": ({"inputs": [tensor(data=[[[1, 2]]])]}, "not nested"),
    "data half nested": ({"inputs": [tensor(data=[1, [2]])]}, "a list"),
    "one number as data": ({"inputs": [tensor(data=7)]}, "'data' is 7"),
    "no data": ({"inputs": [tensor(data=None)]}, "has no data"),
    "texts as numbers": ({"inputs": [tensor(data=["1", "2"])]}, '"1"'),
    "halves as whole numbers": ({"inputs": [tensor(data=[1.5, 2])]}, "1.5"),
    "truths as numbers": ({"inputs": [tensor(data=[True, 2])]}, "true"),
    "nulls as numbers": ({"inputs": [tensor(data=[None, 2])]}, "null"),
    "numbers beyond 64 bits": ({"inputs": [tensor(data=[2**63, 2])]}, "beyond it"),
    "an unknown datatype": ({"inputs": [tensor(datatype="INT65"), LENGTHS]}, "'INT65'"),
    "another datatype": ({"inputs": [tensor(datatype="INT32"), LENGTHS]}, "INT32"),
    "half precision": ({"inputs": [tensor(datatype="FP16", data=[1.0, 2.0])]}, "binary data"),
    "bfloat16": ({"inputs": [tensor(datatype="BF16", data=[1.0, 2.0])]}, "binary data"),
    "floats beyond 32 bits": ({"inputs": [tensor(datatype="FP32", data=[1e39, 0])]}, "1e+39"),
    "whole numbers beyond floats": (
        {"inputs": [tensor(datatype="FP32", data=[10**320, 0])]}, "1000",
    ),
    "whole numbers below unsigned": ({"inputs": [tensor(datatype="UINT8", data=[-1, 0])]}, "-1"),
    "numbers as truths": ({"inputs": [tensor(datatype="BOOL", data=[1, 0])]}, "true or false"),
    "numbers as texts": ({"inputs": [tensor(datatype="BYTES", data=[1, 0])]}, "strings"),
    "an unknown output": ({"inputs": [tensor(), LENGTHS], "outputs": [{"name": "x"}]}, "'x'"),
    "a truth of text": (
        {"inputs": [], "outputs": [{"name": "x", "parameters": {"binary_data": "yes"}}]}, '"yes"',
    ),
    "a null parameter": ({"inputs": [], "parameters": {"timeout": None}}, "'timeout' is null"),
    "a parameter beyond 64 bits": ({"inputs": [], "parameters": {"a": 2**64}}, "64 bits"),
    "an unknown parameter": ({"inputs": [tensor(), LENGTHS], "parameters": {"a": 1}}, "'a'"),
    "an id that is a number": ({"id": 7, "inputs": []}, "'id' is 7"),
    "binary data that is not there": (
        {"inputs": [tensor(data=None, parameters={"binary_data_size": 16})]}, "has 0 bytes",
    ),
    "both kinds of data": ({"inputs": [tensor(parameters={"binary_data_size": 0})]}, "one of the"),
    "a size below nothing": (
        {"inputs": [tensor(data=None, parameters={"binary_data_size": -1})]}, "-1",
    ),
    "a size of text": (
        {"inputs": [tensor(data=None, parameters={"binary_data_size": "16"})]}, '"16"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named(rest, kind):
    content, words = WRONG[kind]
    reply = rest.infer("mood.tensors", content)
    assert reply.status == 400
    assert words in reply.error


def test_shared_memory_is_refused_as_over_grpc(rest):
    away = {"shared_memory_region": "a", "shared_memory_byte_size": 16}
    reply = rest.infer("mood.tensors", {"inputs": [tensor(data=None, parameters=away), LENGTHS]})
    assert reply.status == 501
    assert "shared memory" in reply.error


@pytest.mark.parametrize(
    ("length", "words"), [("x", "'x'"), ("-1", "'-1'"), ("99999", "99999"), ("0", "no JSON"),
                          ("5", "not JSON"), ("9" * 50, "9999")],
)  # fmt: skip
def test_a_wrong_length_of_the_json_is_refused(rest, length, words):
    reply = rest.infer("mood", {"inputs": []}, Inference_Header_Content_Length=length)
    assert reply.status == 400
    assert words in reply.error


def test_bytes_that_nobody_owns_are_refused(rest):
    body, headers = in_binary({"text": np.array([[b"good"]], dtype=object)})
    assert rest.infer("mood", body, **headers).status == 200
    reply = rest.infer("mood", body + b"more", **headers)
    assert reply.status == 400
    assert "4 bytes follow" in reply.error
    assert rest.infer("mood", body[:-1], **headers).status == 400


def test_a_full_budget_refuses_and_says_when_to_try_again(start_service):
    rest = Rest(start_service(memory_budget_bytes=400_000).target)
    assert rest.infer("mood", {"inputs": [texts("good")]}).status == 200
    reply = rest.infer("mood", {"inputs": [texts(*["good"] * 4000)]})
    assert reply.status == 429
    assert int(reply.headers["retry-after"]) >= 1
