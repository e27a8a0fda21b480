"""Models that are stepped, through the inference protocol: sequences without control inputs."""

import re

import grpc
import numpy as np
import pytest

from tests.service.oip.calls import Inference, ask, read
from tests.step_models import FRAME, expected_levels, write_step_bundle
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference import model_config_pb2 as config_pb

FRAMES = np.random.default_rng(8).normal(size=(12, FRAME)).astype(np.float32)


@pytest.fixture
def models(tmp_path):
    write_step_bundle(tmp_path)
    write_step_bundle(tmp_path, "gained", gains=(1.0, 3.0))
    return tmp_path


@pytest.fixture
def inference(start_service, models):
    with Inference(start_service(models=models).target) as inference:
        yield inference


def requests_of(frames, model="leaky", number=7, **inputs):
    last = len(frames) - 1
    for place, frame in enumerate(frames):
        said = {"sequence_id": number}
        said |= {"sequence_start": True} if place == 0 else {}
        said |= {"sequence_end": True} if place == last else {}
        yield ask(model, {"frame": frame[None], **inputs}, True, parameters=said)


def code_of(inference, request):
    with pytest.raises(grpc.RpcError) as caught:
        inference.stub.ModelInfer(request, timeout=20)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("raw", [True, False])
def test_a_row_without_a_sequence_starts_anew(inference, raw):
    found = inference.infer("leaky", {"frame": FRAMES}, raw)
    assert found["level"].tobytes() == FRAMES.tobytes()
    assert found["mean"].shape == (12, 1)


def test_requests_of_a_sequence_go_on_from_one_another(inference):
    found = [
        read(inference.stub.ModelInfer(request, timeout=20)) for request in requests_of(FRAMES)
    ]
    levels = np.concatenate([answer["level"] for answer in found])
    assert levels.tobytes() == expected_levels(FRAMES).tobytes()


def test_sequences_of_one_stream_go_on_side_by_side(inference):
    first, second = requests_of(FRAMES, number=1), requests_of(2 * FRAMES, number="b")
    mixed = [request for pair in zip(first, second, strict=True) for request in pair]
    responses = inference.stream(*mixed)
    assert not any(response.error_message for response in responses), responses
    found = [read(response.infer_response)["level"] for response in responses]
    assert np.concatenate(found[::2]).tobytes() == expected_levels(FRAMES).tobytes()
    assert np.concatenate(found[1::2]).tobytes() == expected_levels(2 * FRAMES).tobytes()


def test_several_steps_a_row_by_the_name_of_tensors(inference):
    pieces = [FRAMES[:5], FRAMES[5:6], FRAMES[6:]]
    found = [
        read(inference.stub.ModelInfer(request, timeout=20))["level"]
        for request in requests_of(pieces, "leaky.tensors")
    ]
    assert [part.shape for part in found] == [(1, 5, FRAME), (1, 1, FRAME), (1, 6, FRAME)]
    assert np.concatenate(found, 1).tobytes() == expected_levels(FRAMES).tobytes()


def test_what_steps_share_is_an_optional_input(inference):
    gain = np.array([3.0], np.float32)
    found = inference.infer("gained", {"frame": FRAMES[:1], "gain": gain}, True)
    assert found["level"].tobytes() == (3 * FRAMES[:1]).tobytes()
    plain = inference.infer("gained", {"frame": FRAMES[:1]}, True)
    assert plain["level"].tobytes() == FRAMES[:1].tobytes()
    levels = [
        read(inference.stub.ModelInfer(request, timeout=20))["level"]
        for request in requests_of(FRAMES, "gained", gain=gain)
    ]
    assert np.concatenate(levels).tobytes() == expected_levels(FRAMES, 3.0).tobytes()


def test_a_sequence_keeps_its_shared_value(inference):
    first, second, *_ = requests_of(FRAMES, "gained", gain=np.array([3.0], np.float32))
    inference.stub.ModelInfer(first, timeout=20)
    other = ask(
        "gained", {"frame": FRAMES[:1], "gain": np.array([1.0], np.float32)}, True,
        parameters={"sequence_id": 7},
    )  # fmt: skip
    code, details = code_of(inference, other)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'gain' is another one than the sequence began with" in details
    # Which leaves the sequence as it was.
    level = read(inference.stub.ModelInfer(second, timeout=20))["level"]
    assert level.tobytes() == expected_levels(FRAMES[:2], 3.0)[1:].tobytes()


def test_metadata_and_configuration_list_the_tensors(inference):
    reported = inference.metadata("gained")
    assert [(p.name, p.datatype, list(p.shape)) for p in reported.inputs] == [
        ("frame", "FP32", [-1, FRAME]), ("gain", "FP32", [-1, 1]),
    ]  # fmt: skip
    assert [(p.name, p.datatype, list(p.shape)) for p in reported.outputs] == [
        ("mean", "FP32", [-1, 1]), ("level", "FP32", [-1, FRAME]),
    ]  # fmt: skip
    config = inference.config("gained")
    assert config.sequence_batching.HasField("oldest")
    assert [(p.name, p.data_type, list(p.dims), p.optional) for p in config.input] == [
        ("frame", config_pb.TYPE_FP32, [FRAME], False), ("gain", config_pb.TYPE_FP32, [1], True),
    ]  # fmt: skip
    assert config.parameters["task"].string_value == "step"
    assert config.parameters["batching"].string_value == "exact"
    tensors = inference.metadata("gained.tensors")
    assert list(tensors.inputs[0].shape) == [-1, -1, FRAME]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'frame' is missing"),
        ({"frame": FRAMES[:, :3]}, r"has the shape \[12, 3\], the model takes \[-1, 4\]"),
        ({"frame": FRAMES.astype(np.int64)}, "is INT64, the model takes FP32"),
        ({"frame": FRAMES[:2], "gain": np.ones((3, 1), np.float32)}, "'gain' has 3 rows"),
        ({"frame": FRAMES[:1], "gain": np.full((1, 1), 2.0, np.float32)}, "choose one of 1, 3"),
        ({"frame": np.full((1, FRAME), np.nan, np.float32)}, "holds NaN"),
    ],
)
def test_wrong_tensors_are_refused_by_name(inference, inputs, message):
    code, details = code_of(inference, ask("gained", inputs, True))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(message, details), details


def test_a_frame_of_too_many_steps_is_refused(inference):
    many = np.zeros((1, 65, FRAME), np.float32)
    code, details = code_of(inference, ask("leaky.tensors", {"frame": many}, True))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "has 65 steps" in details


def test_inferences_and_steps_are_counted(inference):
    for request in requests_of(FRAMES[:4]):
        inference.stub.ModelInfer(request, timeout=20)
    counted = inference.statistics("leaky")
    assert (counted.inference_count, counted.execution_count) == (4, 4)
    assert counted.inference_stats.compute_infer.count == 4


def test_the_model_is_unloaded_and_loaded_as_every_model(inference):
    stub = inference.stub
    stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="leaky"), timeout=20)
    assert code_of(inference, next(requests_of(FRAMES)))[0] is grpc.StatusCode.NOT_FOUND
    stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="leaky"), timeout=20)
    assert inference.infer("leaky", {"frame": FRAMES[:1]}, True)["mean"].shape == (1, 1)
