"""What is wrong with a request is said with the tensor's name, before anything is made of it."""

import resource
import time

import grpc
import pytest

from tests.service.oip.calls import ask, read
from unroll.inference import grpc_service_pb2 as pb

TEXT = {"text": [["bad"]]}
IDS = {"tokens": [[1, 2, 3]], "lengths": [[3]]}


def tensor(request, name):
    return next(t for t in request.inputs if t.name == name)


def set_shape(name, *shape):
    def change(request):
        tensor(request, name).shape[:] = shape

    return change


def set_datatype(name, datatype):
    return lambda request: setattr(tensor(request, name), "datatype", datatype)


def set_raw(number, content):
    def change(request):
        request.raw_input_contents[number] = content

    return change


def drop(name):
    def change(request):
        request.inputs.remove(tensor(request, name))

    return change


def add_input(name, datatype="INT64", shape=(1, 1)):
    return lambda request: request.inputs.add(name=name, datatype=datatype, shape=shape)


def cut_raw(count):
    def change(request):
        del request.raw_input_contents[count:]

    return change


# name: (model, inputs, raw, change, what the message holds)
CASES = {
    "shape above typed contents": (
        "mood.tensors",
        IDS,
        False,
        set_shape("tokens", 1, 4),
        "'tokens'",
    ),
    "shape below typed contents": (
        "mood.tensors",
        IDS,
        False,
        set_shape("tokens", 1, 2),
        "'tokens'",
    ),
    "shape above raw contents": ("mood.tensors", IDS, True, set_shape("tokens", 1, 4), "'tokens'"),
    "shape below raw contents": ("mood.tensors", IDS, True, set_shape("tokens", 1, 2), "'tokens'"),
    "raw bytes of half an element": ("mood.tensors", IDS, True, set_raw(0, b"\0" * 23), "'tokens'"),
    "no raw bytes": ("mood.tensors", IDS, True, set_raw(1, b""), "'lengths'"),
    "a raw tensor too few": ("mood.tensors", IDS, True, cut_raw(1), "'lengths'"),
    "a raw tensor too many": (
        "mood.tensors",
        IDS,
        True,
        lambda r: r.raw_input_contents.append(b""),
        "3 entries for 2",
    ),
    "raw and typed": (
        "mood.tensors",
        IDS,
        True,
        lambda r: tensor(r, "lengths").contents.int64_contents.append(3),
        "'lengths'",
    ),
    "raw and empty typed": (
        "mood.tensors",
        IDS,
        True,
        lambda r: tensor(r, "tokens").contents.SetInParent(),
        "'tokens'",
    ),
    "another typed field": (
        "mood.tensors",
        IDS,
        False,
        lambda r: tensor(r, "lengths").contents.int_contents.append(3),
        "'lengths'",
    ),
    "truncated length of BYTES": ("mood", TEXT, True, set_raw(0, b"\3\0\0"), "'text'"),
    "truncated BYTES": ("mood", TEXT, True, set_raw(0, b"\4\0\0\0bad"), "'text'"),
    "bytes after BYTES": ("mood", TEXT, True, set_raw(0, b"\3\0\0\0bad!"), "'text'"),
    "a big-endian length": ("mood", TEXT, True, set_raw(0, b"\0\0\0\3bad"), "'text'"),
    "a length of 4 GiB": ("mood", TEXT, True, set_raw(0, b"\xff\xff\xff\xffbad"), "'text'"),
    "BYTES that are not UTF-8": ("mood", TEXT, True, set_raw(0, b"\3\0\0\0b\xffd"), "'text'"),
    "a huge shape, raw": ("mood.tensors", IDS, True, set_shape("tokens", 1, 2**40), "'tokens'"),
    "a huge shape, typed": ("mood.tensors", IDS, False, set_shape("tokens", 1, 2**40), "'tokens'"),
    "a shape beyond int64": (
        "mood.tensors",
        IDS,
        True,
        set_shape("tokens", 2**62, 2**62),
        "'tokens'",
    ),
    "a huge batch of texts": ("mood", TEXT, True, set_shape("text", 2**31, 1), "'text'"),
    "a batch just below what could be": ("mood", TEXT, True, set_shape("text", 2**30, 1), "'text'"),
    "many dimensions": ("mood.tensors", IDS, True, set_shape("tokens", *[1] * 50), "'tokens'"),
    "no dimensions": ("mood.tensors", IDS, False, set_shape("tokens"), "'tokens'"),
    "a dimension of none": ("mood.tensors", IDS, False, set_shape("tokens", 1, 0), "'tokens'"),
    "a negative dimension": ("mood.tensors", IDS, True, set_shape("tokens", -1, 3), "'tokens'"),
    "negative dimensions whose product fits": (
        "mood.tensors",
        IDS,
        True,
        set_shape("tokens", -1, -3),
        "'tokens'",
    ),
    "an unknown datatype": ("mood.tensors", IDS, True, set_datatype("tokens", "INT65"), "INT65"),
    "no datatype": ("mood.tensors", IDS, True, set_datatype("tokens", ""), "'tokens'"),
    "another datatype": ("mood.tensors", IDS, True, set_datatype("tokens", "FP64"), "'tokens'"),
    "a datatype that is raw only": (
        "mood.tensors",
        IDS,
        True,
        set_datatype("tokens", "BF16"),
        "'tokens'",
    ),
    "a missing input": ("mood.tensors", IDS, False, drop("lengths"), "'lengths' is missing"),
    "no input": ("mood", TEXT, False, drop("text"), "'text' is missing"),
    "an unknown input": ("mood", TEXT, False, add_input("txet"), "'txet'"),
    "an input twice": ("mood", TEXT, False, add_input("text", "BYTES"), "'text' comes twice"),
    "an unknown output": ("mood", TEXT, False, lambda r: r.outputs.add(name="lable"), "'lable'"),
    "an output twice": (
        "mood",
        TEXT,
        False,
        lambda r: [r.outputs.add(name="label"), r.outputs.add(name="label")],
        "'label'",
    ),
    "batches of two sizes": (
        "mood.tensors",
        {**IDS, "lengths": [[3], [3]]},
        False,
        None,
        "'lengths'",
    ),
    "a length of none": ("mood.tensors", {**IDS, "lengths": [[0]]}, False, None, "'lengths'"),
    "a length beyond the row": (
        "mood.tensors",
        {**IDS, "lengths": [[4]]},
        False,
        None,
        "'lengths'",
    ),
    "an id that is none": (
        "mood.tensors",
        {**IDS, "tokens": [[1, 2, 10]]},
        False,
        None,
        "the id 10",
    ),
    "a negative id": ("tags.tensors", {**IDS, "tokens": [[1, -2, 3]]}, False, None, "the id -2"),
    "an empty text": ("mood", {"text": [["bad"], [""]]}, False, None, "'text': texts[1]"),
    "too many rows": ("mood", {"text": [["bad"]] * 1025}, True, None, "'text' has 1025 rows"),
    "too many tokens": (
        "tags.tensors",
        {"tokens": [[1] * 65], "lengths": [[65]]},
        True,
        None,
        "'tokens'",
    ),
    "a vector too short": ("foods", {"vector": [1.0, 2.0]}, False, None, "'vector'"),
    "a vector with no number": (
        "foods",
        {"vector": [1.0, float("nan"), 2.0]},
        True,
        None,
        "vector.values[1] is nan",
    ),
    "half a state": (
        "letters.tensors",
        {**IDS, "hidden_0": [[0.0] * 13]},
        False,
        None,
        "'cell_0' is missing",
    ),
    "a state with which products leave float32": (
        "letters.tensors",
        {
            **{"tokens": [[1]], "lengths": [[1]]},
            **{name: [[3e38] * 13] for name in ("hidden_0", "cell_0", "hidden_1", "cell_1")},
        },
        True,
        None,
        "hidden_0 holds what no state of model 'letters' can be",
    ),
    "a source without its lengths": (
        "speller.tensors",
        {"source": [[1, 2]]},
        False,
        None,
        "'source_lengths'",
    ),
    "neither source nor state": (
        "speller.tensors",
        {"token": [[1]]},
        False,
        None,
        "neither a source nor a state",
    ),
    "nothing at all": ("speller.tensors", {}, False, None, "no inputs"),
    "sides of a blank with unlike batches": (
        "blank.tensors",
        {**IDS, "right": [[1], [1]], "right_lengths": [[1], [1]]},
        False,
        None,
        "'right'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_request_is_refused_with_the_tensors_name(refused, case):
    model, inputs, raw, change, reported = CASES[case]
    request = ask(model, inputs, raw)
    if change:
        change(request)
    assert reported in refused(request)


PARAMETERS = {
    "unknown": ("mood", {"tempo": 1}, "'tempo' is unknown"),
    "of another model": ("mood", {"temperature": 1.0}, "'temperature' is unknown"),
    "no number": ("letters", {"temperature": "warm"}, "'temperature'"),
    "not finite": ("letters", {"temperature": "nan"}, "'temperature'"),
    "a truth for a number": ("letters", {"top_k": True}, "'top_k'"),
    "half a token": ("letters", {"max_tokens": 1.5}, "'max_tokens'"),
    "below none": ("letters", {"max_tokens": -1}, "'max_tokens'"),
    "none to make": ("letters", {"max_tokens": 0}, "max_tokens is 0"),
    "a seed too large": ("letters", {"seed": str(2**64)}, "'seed'"),
    "no JSON": ("letters", {"allowed_tokens": "1, 2"}, "'allowed_tokens'"),
    "JSON of another kind": ("letters", {"logit_bias": "[1]"}, "'logit_bias'"),
    "deep JSON": ("letters", {"allowed_tokens": "[" * 100_000}, "'allowed_tokens'"),
    "a bias that is no number": ("letters", {"logit_bias": '{"1": NaN}'}, "logit_bias"),
    "a token that is none": ("letters", {"allowed_tokens": "[99]"}, "allowed_tokens"),
    "choices that are no JSON": ("letters", {"choices": "yes, no"}, "'choices'"),
    "choices that are no texts": ("letters", {"choices": "[1, 2]"}, "'choices'"),
    "a number for an expression": ("letters", {"regex": 5}, "'regex'"),
    "two constraints": ("letters", {"regex": "a", "choices": '["a"]'}, "choices and regex exclude"),
    "a schema that is no JSON": ("letters", {"json_schema": "{"}, "json_schema"),
    "a schema out of reach": (
        "letters",
        {"json_schema": '{"type": "null"}'},
        "json_schema: it lacks 'u'",
    ),
    "a priority that is none": ("letters", {"priority": "high"}, "'priority'"),
    "a sequence where none is kept": ("letters", {"sequence_id": 3}, "'sequence_id'"),
    "a start without a sequence": ("tags-online", {"sequence_start": True}, "'sequence_id'"),
    "a sequence that is half": ("tags-online", {"sequence_id": 1.5}, "'sequence_id'"),
    "too many words": ("blank", {"top_words": 101}, "'top_words'"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_parameter_that_cannot_be_read_is_refused_with_its_name(refused, case):
    model, parameters, reported = PARAMETERS[case]
    inputs = {"prompt": ["abc"]} if model == "letters" else {"text": [["the ___ food"]]}
    assert reported in refused(model, inputs, parameters=parameters)


def test_a_parameter_without_a_value_is_refused(refused):
    request = ask("mood", TEXT)
    request.parameters["timeout"].SetInParent()
    assert "'timeout' has no value" in refused(request)


@pytest.mark.parametrize("where", ["input", "output"])
def test_shared_memory_is_refused_with_what_to_use_instead(inference, where):
    request = ask("mood", TEXT, outputs=["label"])
    place = request.inputs[0] if where == "input" else request.outputs[0]
    place.parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(grpc.RpcError) as caught:
        inference.stub.ModelInfer(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "raw contents instead" in caught.value.details()


def test_an_output_without_labels_has_no_classes(refused):
    request = ask("mood", TEXT, outputs=["label"])
    request.outputs[0].parameters["classification"].int64_param = 1
    assert "'label' has no labels" in refused(request)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("mood.tensors", {"tokens": [[1]] * 60, "lengths": [[1]] * 60}),
        ("tags.tensors", {"tokens": [[1] * 30], "lengths": [[1]]}),
        ("blank.tensors", {**IDS, "right": [[1]], "right_lengths": [[1]]}),
        ("speller.tensors", {"source": [[1]], "source_lengths": [[1]]}),
    ],
)
def test_an_answer_of_too_much_is_refused(refused, monkeypatch, model, inputs):
    """Counting all that a row has: of a decoder its memory, too."""
    most = 3 if model == "blank.tensors" else 100
    monkeypatch.setattr("service.oip.tensor_adapters._MOST_NUMBERS", most)
    assert f"holds at most {most}; send fewer rows" in refused(model, inputs)


def test_a_claim_costs_neither_memory_nor_time(refused):
    """A shape of gigabytes over a few bytes is refused at once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    for model, name, shape in (
        ("mood.tensors", "tokens", (1024, 2**20)),
        ("mood", "text", (2**30, 1)),
        ("letters.tensors", "tokens", (2**15, 2**15)),
    ):
        request = ask(model, TEXT if name == "text" else IDS, True)
        tensor(request, name).shape[:] = shape
        assert name in refused(request)
    # 2**30 pointers would be 8 GB, and minutes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert time.monotonic() - started < 20


def test_a_refused_request_disturbs_nobody(inference, refused):
    good = ask("mood.tensors", IDS, True)
    before = inference.stub.ModelInfer(good, timeout=20)
    waiting = [inference.stub.ModelInfer.future(good, timeout=20) for _ in range(20)]
    for _ in range(20):
        refused("mood.tensors", {**IDS, "tokens": [[1, 2, 10]]})
    for answer in waiting:
        assert read(answer.result())["logits"].tolist() == read(before)["logits"].tolist()


@pytest.mark.parametrize(
    ("request_of", "reported"),
    [
        (pb.ModelInferRequest(model_name="moods"), "served are: "),
        (pb.ModelInferRequest(), "served are: "),
        (pb.ModelInferRequest(model_name="mood", model_version="2"), "served in version '1'"),
        (pb.ModelInferRequest(model_name="x" * 500_000), "no model 'xxx"),
    ],
    ids=["unknown", "none", "version", "long"],
)
def test_a_model_that_is_not_served_is_not_found(inference, request_of, reported):
    with pytest.raises(grpc.RpcError) as caught:
        inference.stub.ModelInfer(request_of, timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reported in caught.value.details()
