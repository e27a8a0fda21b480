"""Requests over ModelStreamInfer, and comparing their responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from conformance import protocol as pb
from conformance.cases import Failure, NotApplicable, expect
from conformance.endpoint import Stream
from conformance.subjects import NO_SUCH, Arrays, Subject, same, status_of

FINAL = "triton_final_response"
ENABLE_EMPTY_FINAL = "triton_enable_empty_final_response"
# Requests on one stream at a time.
INTERLEAVED = 8

Responses = list[pb.ModelStreamInferResponse]


def converse(subject: Subject, *requests: pb.ModelInferRequest) -> Responses:
    """Send all, close, and everything that comes. Raises Failure where the stream fails."""
    with subject.endpoint.stream() as stream:
        stream.send(*requests)
        return rest(stream)


def rest(stream: Stream) -> Responses:
    try:
        return stream.rest()
    except grpc.RpcError as error:
        raise Failure("a stream that ends with OK", status_of(error)) from error


def receive(stream: Stream) -> pb.ModelStreamInferResponse:
    try:
        return stream.next()
    except StopIteration:
        raise Failure("a response", "the end of the stream") from None
    except grpc.RpcError as error:
        raise Failure("a response", status_of(error)) from error


def answers(responses: Responses) -> list[pb.ModelInferResponse]:
    """Raises Failure where one is an error."""
    for response in responses:
        expect(not response.error_message, "no error", repr(response.error_message))
    return [response.infer_response for response in responses]


def of(responses: Responses, id: str) -> Responses:
    return [one for one in responses if one.infer_response.id == id]


def is_final(answer: pb.ModelInferResponse) -> bool:
    return answer.parameters[FINAL].bool_param if FINAL in answer.parameters else False


def filled(found: Sequence[pb.ModelInferResponse]) -> list[pb.ModelInferResponse]:
    """Those that hold outputs."""
    return [answer for answer in found if answer.outputs]


def same_answers(
    subject: Subject,
    found: Sequence[pb.ModelInferResponse],
    expected: Sequence[pb.ModelInferResponse],
) -> None:
    """The same outputs in the same order; of a model that varies, only that there are some."""
    if not (subject.is_stable or subject.must_be_stable):
        expect(bool(filled(found)), "responses", "none")
        return
    one, other = ([subject.read(answer) for answer in filled(both)] for both in (found, expected))
    expect(bool(one), "responses with outputs", "none")
    if len(one) == len(other) == 1:
        same(one[0], other[0])
    else:
        same(joined(one), joined(other))


def joined(responses: Sequence[Arrays]) -> Arrays:
    """Each output of all responses in one row: how many portions they came in is lost."""
    names = dict.fromkeys(name for outputs in responses for name in outputs)
    return {name: _row([one[name] for one in responses if name in one]) for name in names}


def _row(portions: list[NDArray[Any]]) -> NDArray[Any]:
    row = np.concatenate([portion.ravel() for portion in portions])
    # A text may be cut anywhere, a word into two.
    return np.array([b"".join(row)], object) if row.dtype == object else row


def unknown_model(id: str) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name=NO_SUCH, id=id)


def need_one_answer(subject: Subject) -> None:
    if subject.model.is_decoupled or subject.model.keeps_sequences:
        raise NotApplicable("may answer a request many times, or not outside of a sequence")
