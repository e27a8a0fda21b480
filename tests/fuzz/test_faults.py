"""What the fuzzer takes for a fault, and what it does not."""

from __future__ import annotations

import pytest

from tests.fuzz.faults import CANCELLED_BY_US, Answer, fault_of
from tests.fuzz.methods import INFERENCE, UNROLL
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.v1 import unroll_pb2 as pb

TAG, GENERATE, STREAM_TAG, FORECAST, STREAM_STEP = (
    UNROLL[name] for name in ("Tag", "Generate", "StreamTag", "Forecast", "StreamStep")
)
STREAM_INFER = INFERENCE["ModelStreamInfer"]


@pytest.mark.parametrize(
    ("status", "details", "is_fault"),
    [
        (CANCELLED_BY_US, "", False),
        ("INVALID_ARGUMENT", "texts holds 0 entries", False),
        ("INVALID_ARGUMENT", "", True),
        ("INTERNAL", "the server failed; see its log", True),
        ("UNKNOWN", "Unexpected <class 'ValueError'>", True),
        ("UNAVAILABLE", "Socket closed", True),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", True),
        ("DEADLINE_EXCEEDED", "longer than the 1e-06 s of its parameter 'timeout'", False),
        ("RESOURCE_EXHAUSTED", "received metadata size exceeds hard limit", True),
    ],
)
def test_a_status_says_what_to_do(status: str, details: str, is_fault: bool) -> None:
    assert bool(fault_of(TAG, 1, Answer(status, details, []))) is is_fault


def test_what_exists_is_no_fault_of_what_makes_it_alone() -> None:
    there_is_one = Answer("ALREADY_EXISTS", "you have a state 'one'", [])
    assert not fault_of(UNROLL["CreateState"], 1, there_is_one)
    assert fault_of(TAG, 1, there_is_one)


def test_a_stream_that_goes_well_has_an_end() -> None:
    """The last message says that it is the last."""
    ended = {
        GENERATE: pb.GenerateResponse(finish_reason=pb.FINISH_REASON_STOP),
        STREAM_TAG: pb.StreamTagResponse(usage=pb.Usage()),
        FORECAST: pb.ForecastResponse(usage=pb.Usage()),
        STREAM_STEP: pb.StreamStepResponse(usage=pb.StepUsage()),
    }
    for method, last in ended.items():
        begun = method.response().SerializeToString()
        whole = Answer("OK", "", [begun, last.SerializeToString()])
        assert not fault_of(method, 1, whole)
        assert fault_of(method, 1, Answer("OK", "", [begun]))
        assert fault_of(method, 1, Answer("OK", "", []))


def test_each_request_of_a_stream_ends_once() -> None:
    """In its final response or in its error, whatever the others do."""
    response = inference_pb.ModelStreamInferResponse()
    response.infer_response.parameters["triton_final_response"].bool_param = True
    final = response.SerializeToString()
    error = inference_pb.ModelStreamInferResponse(error_message="no").SerializeToString()
    token = inference_pb.ModelStreamInferResponse().SerializeToString()
    assert not fault_of(STREAM_INFER, 2, Answer("OK", "", [token, final, error]))
    assert fault_of(STREAM_INFER, 3, Answer("OK", "", [token, final, error]))
    assert fault_of(STREAM_INFER, 1, Answer("OK", "", [final, final]))
