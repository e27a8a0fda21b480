"""How a call may end, whatever was sent: a status that says what to do, and nothing left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.fuzz.methods import Method
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.v1 import unroll_pb2 as pb

SECONDS = 20.0
CANCELLED_BY_US = "cancelled by us"
# The connection broke: one of the calls under way may have ended the server.
BROKEN = "UNAVAILABLE"
_REFUSALS = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
)
# Of a method that makes what another call may have made before.
_OWN_REFUSALS = {"CreateState": frozenset({"ALREADY_EXISTS"})}
# A request may itself say how long it may take.
_OWN_TIMEOUT = "parameter 'timeout'"
_FINAL = "triton_final_response"


@dataclass(frozen=True)
class Answer:
    """How a call ended: its status, what came with it, and the messages before."""

    status: str
    details: str
    messages: list[bytes]


def fault_of(method: Method, sent: int, answer: Answer) -> str:
    """Why no call of ``sent`` messages should end like that; empty where it may."""
    status, details = answer.status, answer.details
    if status == CANCELLED_BY_US:
        return ""
    if status == "OK":
        return _missing(method, sent, answer.messages)
    if status == "DEADLINE_EXCEEDED" and _OWN_TIMEOUT not in details:
        return f"no end within {SECONDS:g} s"
    if not details:
        return f"{status} without a word"
    # What refuses a long text must not quote all of it.
    is_whole = "metadata size" not in details
    refusals = _REFUSALS | _OWN_REFUSALS.get(method.name, frozenset())
    may_end_so = is_whole and (status == "DEADLINE_EXCEEDED" or status in refusals)
    return "" if may_end_so else f"{status}: {details}"


def _missing(method: Method, sent: int, messages: Sequence[bytes]) -> str:
    """What a call that went well should have been sent, and was not."""
    if method.name == "ModelStreamInfer":
        return _unanswered(sent, messages)
    if method.name == "Generate":
        last = pb.GenerateResponse.FromString(messages[-1]) if messages else pb.GenerateResponse()
        return "" if last.finish_reason else "OK without an end"
    if method.name == "Forecast":
        drawn = pb.ForecastResponse.FromString(messages[-1]) if messages else None
        has_end = drawn and (drawn.HasField("usage") or drawn.resume_token)
        return "" if has_end else "OK without an end"
    if method.name == "StreamTag":
        tagged = pb.StreamTagResponse.FromString(messages[-1]) if messages else None
        return "" if tagged and tagged.HasField("usage") else "OK without an end"
    if method.name == "StreamStep":
        stepped = pb.StreamStepResponse.FromString(messages[-1]) if messages else None
        return "" if stepped and stepped.HasField("usage") else "OK without an end"
    return "" if len(messages) == 1 else f"OK with {len(messages)} answers"


def _unanswered(sent: int, messages: Sequence[bytes]) -> str:
    """Each request of a stream ends once: in its final response or in its error."""
    ends = 0
    for data in messages:
        response = inference_pb.ModelStreamInferResponse.FromString(data)
        is_final = response.infer_response.parameters[_FINAL].bool_param
        ends += bool(response.error_message) or is_final
    return "" if ends == sent else f"OK with {ends} ends of {sent} requests"
