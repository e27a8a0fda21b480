"""Streaming: Triton's ModelStreamInfer, its answers and its errors."""

from __future__ import annotations

import grpc

from conformance import protocol as pb
from conformance.cases import SHOULD, STREAM, STREAMING, Failure, Section, expect
from conformance.streams import (
    INTERLEAVED,
    answers,
    converse,
    filled,
    need_one_answer,
    of,
    receive,
    rest,
    same_answers,
    unknown_model,
)
from conformance.subjects import Subject, brief, status_of

STATUS_HEADER = ("triton_grpc_error", "true")

stream_infer = Section(STREAMING, "ModelStreamInfer", needs="ModelStreamInfer")


@stream_infer("stream-infer-001", STREAM, "ModelStreamInferResponse.infer_response")
def request_is_answered(subject: Subject) -> None:
    """A request is answered at least once, and without an error."""
    found = answers(converse(subject, subject.request(id="one")))
    expect(bool(filled(found)), "a response with outputs", f"{len(found)} without")


@stream_infer("stream-infer-002", STREAM, "ModelInferResponse.id")
def responses_bear_the_id(subject: Subject) -> None:
    """Every response bears the id of its request."""
    ids = {answer.id for answer in answers(converse(subject, subject.request(id="a name")))}
    expect(ids == {"a name"}, "'a name' in all", sorted(ids))


@stream_infer("stream-infer-003", STREAM, "ModelInferResponse.model_name")
def responses_name_the_model(subject: Subject) -> None:
    """Every response names its model."""
    names = {answer.model_name for answer in answers(converse(subject, subject.request(id="1")))}
    expect(names == {subject.model.name}, repr(subject.model.name), sorted(names))


@stream_infer("stream-infer-004", STREAM, "ModelInferResponse.outputs")
def outputs_are_as_described(subject: Subject) -> None:
    """Outputs have the names and datatypes that the metadata declares, and can be read."""
    described = {tensor.name: tensor.datatype for tensor in subject.model.outputs}
    for answer in filled(answers(converse(subject, subject.request(id="1")))):
        found = {output.name: output.datatype for output in answer.outputs}
        expect(found.items() <= described.items(), f"of {described}", found)
        subject.read(answer)


@stream_infer("stream-infer-005", STREAM, "ModelInferRequest.outputs")
def requested_output_comes_alone(subject: Subject) -> None:
    """A requested output comes, and no other."""
    name = subject.model.outputs[-1].name
    for answer in filled(answers(converse(subject, subject.request(id="1", outputs=[name])))):
        found = [output.name for output in answer.outputs]
        expect(found == [name], str([name]), found)


@stream_infer("stream-infer-006", STREAM, "ModelStreamInferResponse.infer_response")
def streamed_as_unary(subject: Subject) -> None:
    """A model that answers once gives on a stream what ModelInfer gives."""
    need_one_answer(subject)
    found = filled(answers(converse(subject, subject.request(id="1"))))
    expect(len(found) == 1, "one response", len(found))
    same_answers(subject, found, [subject.infer(subject.request())])


@stream_infer("stream-infer-007", STREAM, "ModelInferRequest.id")
def interleaved_requests_complete(subject: Subject) -> None:
    """8 requests on one stream each have their responses, in the order they have alone."""
    kinds = (subject.request(), subject.request(subject.other()))
    alone = [answers(converse(subject, request)) for request in kinds]
    sent = [pb.ModelInferRequest() for _ in range(INTERLEAVED)]
    for index, request in enumerate(sent):
        request.CopyFrom(kinds[index % 2])
        request.id = f"request-{index}"
    found = converse(subject, *sent)
    for index, request in enumerate(sent):
        same_answers(subject, answers(of(found, request.id)), alone[index % 2])


@stream_infer("stream-infer-008", STREAM, "ModelInferRequest.id")
def streams_do_not_mix(subject: Subject) -> None:
    """Two streams that use the same id each get their own responses."""
    kinds = (subject.request(id="1"), subject.request(subject.other(), id="1"))
    alone = [answers(converse(subject, request)) for request in kinds]
    with subject.endpoint.stream() as one, subject.endpoint.stream() as other:
        one.send(kinds[0])
        other.send(kinds[1])
        for stream, expected in zip((one, other), alone, strict=True):
            same_answers(subject, answers(rest(stream)), expected)


@stream_infer("stream-infer-009", STREAM, "ModelStreamInferRequest")
def half_close_lets_the_rest_arrive(subject: Subject) -> None:
    """After the client's half-close the remaining responses arrive, and the stream ends with OK."""
    before = answers(converse(subject, subject.request(id="before")))
    with subject.endpoint.stream() as stream:
        stream.send(*[subject.request(id=str(index)) for index in range(INTERLEAVED)])
        first = receive(stream)
        found = answers([first, *rest(stream)])
    for index in range(INTERLEAVED):
        same_answers(subject, [one for one in found if one.id == str(index)], before)


@stream_infer("stream-infer-010", STREAM, "ModelStreamInferRequest")
def stream_without_requests(subject: Subject) -> None:
    """A stream without a request ends with OK and no response."""
    found = converse(subject)
    expect(not found, "no response", len(found))


@stream_infer("stream-infer-011", STREAM, "ModelStreamInferRequest")
def cancelled_stream_harms_nobody(subject: Subject) -> None:
    """Streams that are cancelled under way leave the server serving."""
    before = answers(converse(subject, subject.request(id="1")))
    for _ in range(INTERLEAVED):
        with subject.endpoint.stream() as stream:
            stream.send(*[subject.request(id=str(index)) for index in range(INTERLEAVED)])
            receive(stream)
    same_answers(subject, answers(converse(subject, subject.request(id="1"))), before)


@stream_infer("stream-error-001", STREAM, "ModelStreamInferResponse.error_message")
def error_is_in_band(subject: Subject) -> None:
    """The error of a request comes in a response; the stream goes on and ends with OK."""
    with subject.endpoint.stream() as stream:
        stream.send(unknown_model("bad"))
        expect(bool(receive(stream).error_message), "an error_message", "none")
        stream.send(subject.request(id="good"))
        found = answers(rest(stream))
    expect(bool(filled(found)), "an answer after the error", "none")


@stream_infer("stream-error-002", STREAM, "ModelInferResponse.id", level=SHOULD)
def error_bears_the_id(subject: Subject) -> None:
    """An error in band bears the id of the request that it is about."""
    found = converse(subject, unknown_model("the bad one"))
    ids = [one.infer_response.id for one in found if one.error_message]
    expect(ids == ["the bad one"], "one error with the id 'the bad one'", ids)


@stream_infer("stream-error-003", STREAM, "ModelStreamInferResponse.error_message")
def error_leaves_the_others(subject: Subject) -> None:
    """A bad request among good ones changes none of their responses."""
    expected = answers(converse(subject, subject.request(id="1")))
    sent = [subject.request(id="1"), unknown_model("bad"), subject.request(id="2")]
    found = converse(subject, *sent)
    errors = [one for one in found if one.error_message]
    expect(len(errors) == 1, "one error", len(errors))
    good = answers([one for one in found if not one.error_message])
    for id in ("1", "2"):
        same_answers(subject, [answer for answer in good if answer.id == id], expected)


@stream_infer("stream-error-004", STREAM, "ModelStreamInferResponse.error_message")
def malformed_tensor_is_an_error(subject: Subject) -> None:
    """A malformed tensor on a stream is an error in band: a shape over too few bytes."""
    request = subject.request(id="bad")
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
    found = converse(subject, request)
    expect([bool(one.error_message) for one in found] == [True], "one error", brief(found))


@stream_infer("stream-error-005", STREAM, "triton_grpc_error")
def status_on_request(subject: Subject) -> None:
    """With the header triton_grpc_error: true, an error ends the stream with a status."""
    with subject.endpoint.stream(STATUS_HEADER) as stream:
        stream.send(unknown_model("bad"))
        try:
            found = stream.next()
        except grpc.RpcError as error:
            code = error.code().name
            expect(code not in ("UNKNOWN", "DEADLINE_EXCEEDED"), "its own code", status_of(error))
        except StopIteration:
            raise Failure("a status", "OK") from None
        else:
            raise Failure("a status", brief(found))


@stream_infer("stream-error-006", STREAM, "triton_grpc_error")
def header_changes_no_answers(subject: Subject) -> None:
    """The header triton_grpc_error: true does not change the responses to a good request."""
    expected = answers(converse(subject, subject.request(id="1")))
    with subject.endpoint.stream(STATUS_HEADER) as stream:
        stream.send(subject.request(id="1"))
        same_answers(subject, answers(rest(stream)), expected)
