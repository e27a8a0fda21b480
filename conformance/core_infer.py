"""Core: ModelInfer where the request is good."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from conformance import protocol as pb
from conformance.cases import CORE, SHOULD, UNARY, Failure, NotApplicable, Section, expect
from conformance.requests import stacked
from conformance.subjects import (
    NO_SUCH,
    Arrays,
    Subject,
    brief,
    read,
    same,
    status_of,
)
from conformance.tensors import BYTES, FIELDS, Malformed, from_raw, item_size

CONCURRENT = 32

infer = Section(CORE, "ModelInfer")
tensor_data = Section(CORE, "Tensor data")


@infer("core-infer-001", UNARY, "ModelInferRequest.inputs")
def request_is_answered(subject: Subject) -> None:
    """A request built from the model's metadata is answered."""
    expect(len(subject.infer(subject.request()).outputs) > 0, "outputs", "none")


@infer("core-infer-002", UNARY, "ModelInferResponse.id")
def id_comes_back(subject: Subject) -> None:
    """The id of the request comes back."""
    _check_ids(subject, "1", "a longer-id_with/marks: 0x1F", "x" * 300)


def _check_ids(subject: Subject, *ids: str) -> None:
    for id in ids:
        found = subject.infer(subject.request(id=id)).id
        expect(found == id, repr(id), repr(found))


@infer("core-infer-003", UNARY, "ModelInferResponse.model_name")
def model_is_named(subject: Subject) -> None:
    """The response names the model."""
    found = subject.infer(subject.request()).model_name
    expect(found == subject.model.name, repr(subject.model.name), repr(found))


@infer("core-infer-004", UNARY, "ModelInferResponse.model_version")
def version_is_a_listed_one(subject: Subject) -> None:
    """The response names a version that the metadata lists."""
    if not subject.model.versions:
        raise NotApplicable("its metadata lists no versions")
    found = subject.infer(subject.request()).model_version
    expect(found in subject.model.versions, f"one of {subject.model.versions}", repr(found))


@infer("core-infer-005", UNARY, "ModelInferRequest.model_version")
def requested_version_answers(subject: Subject) -> None:
    """A listed version that is requested is the one that answers."""
    if not subject.model.versions:
        raise NotApplicable("its metadata lists no versions")
    for version in subject.model.versions:
        found = subject.infer(subject.request(version=version)).model_version
        expect(found == version, repr(version), repr(found))


@infer("core-infer-006", UNARY, "ModelInferRequest.outputs")
def all_outputs_come(subject: Subject) -> None:
    """Where no outputs are requested, all come, each once."""
    found = [output.name for output in subject.infer(subject.request()).outputs]
    expected = [tensor.name for tensor in subject.model.outputs]
    expect(sorted(found) == sorted(expected), str(expected), found)


@infer("core-infer-007", UNARY, "InferOutputTensor.datatype")
def datatypes_are_as_described(subject: Subject) -> None:
    """Outputs have the datatypes that the metadata declares."""
    described = {tensor.name: tensor.datatype for tensor in subject.model.outputs}
    for output in subject.infer(subject.request()).outputs:
        expected = described.get(output.name, "no such output")
        expect(output.datatype == expected, f"{output.name}: {expected}", output.datatype)


@infer("core-infer-008", UNARY, "InferOutputTensor.shape")
def shapes_are_as_described(subject: Subject) -> None:
    """Outputs have the shapes that the metadata declares, any size where it says -1."""
    described = {tensor.name: tensor.shape for tensor in subject.model.outputs}
    for output in subject.infer(subject.request()).outputs:
        expected, found = described.get(output.name, ()), tuple(output.shape)
        fits = len(found) == len(expected) and all(
            size >= 0 and wanted in (-1, size) for size, wanted in zip(found, expected, strict=True)
        )
        expect(fits, f"{output.name}: {list(expected)}", list(found))


@infer("core-infer-009", UNARY, "ModelInferRequest.outputs")
def requested_output_comes_alone(subject: Subject) -> None:
    """A requested output comes, and no other."""
    for tensor in subject.model.outputs:
        answer = subject.infer(subject.request(outputs=[tensor.name]))
        found = [output.name for output in answer.outputs]
        expect(found == [tensor.name], str([tensor.name]), found)


@infer("core-infer-010", UNARY, "ModelInferRequest.outputs", level=SHOULD)
def outputs_come_in_the_requested_order(subject: Subject) -> None:
    """Outputs come in the order they are requested in."""
    names = [tensor.name for tensor in subject.model.outputs]
    if len(names) < 2:
        raise NotApplicable("has one output")
    for order in (names, names[::-1]):
        found = [output.name for output in subject.infer(subject.request(outputs=order)).outputs]
        expect(found == order, str(order), found)


@tensor_data("core-infer-011", UNARY, "ModelInferResponse.raw_output_contents")
def raw_or_typed_for_all(subject: Subject) -> None:
    """A response is raw for all of its outputs or for none, and never both for one."""
    for response in _raw_and_typed(subject):
        typed = [output.name for output in response.outputs if output.contents.ListFields()]
        raw = len(response.raw_output_contents)
        if raw:
            expect(not typed, "no typed contents beside raw ones", f"typed {typed}")
            expect(raw == len(response.outputs), f"{len(response.outputs)} raw buffers", raw)


def _raw_and_typed(subject: Subject) -> Iterator[pb.ModelInferResponse]:
    """The answer to a raw request, and to a typed one where the inputs have typed contents."""
    yield subject.infer(subject.request())
    try:
        typed = subject.typed()
    except NotApplicable:
        return
    yield subject.infer(typed)


@tensor_data("core-infer-012", UNARY, "ModelInferResponse.raw_output_contents")
def raw_buffers_have_their_size(subject: Subject) -> None:
    """A raw buffer of numbers has the bytes of its shape and datatype."""
    for output, raw in _raw_outputs(subject):
        if output.datatype == BYTES:
            continue
        count = 1
        for size in output.shape:
            count *= size
        expected = count * item_size(output.datatype)
        expect(len(raw) == expected, f"{output.name}: {expected} bytes", len(raw))


@tensor_data("core-infer-013", UNARY, "ModelInferResponse.raw_output_contents")
def bytes_fill_their_buffer(subject: Subject) -> None:
    """Elements of BYTES follow four bytes of length, little-endian, and fill their buffer."""
    words = [(output, raw) for output, raw in _raw_outputs(subject) if output.datatype == BYTES]
    if not words:
        raise NotApplicable("answers no raw BYTES")
    for output, raw in words:
        try:
            from_raw(BYTES, tuple(output.shape), raw)
        except Malformed as error:
            raise Failure(f"{output.name}: elements that fill it", str(error)) from error


def _raw_outputs(subject: Subject) -> list[tuple[pb.ModelInferResponse.InferOutputTensor, bytes]]:
    response = subject.infer(subject.request())
    return list(zip(response.outputs, response.raw_output_contents, strict=False))


@tensor_data("core-infer-014", UNARY, "InferTensorContents")
def typed_contents_are_answered(subject: Subject) -> None:
    """A request with typed contents is answered."""
    expect(len(subject.infer(subject.typed()).outputs) > 0, "outputs", "none")


@tensor_data("core-infer-015", UNARY, "InferOutputTensor.contents")
def typed_outputs_are_in_their_field(subject: Subject) -> None:
    """Typed contents of a response are in the field of their datatype, one for each element."""
    typed = [one for one in _raw_and_typed(subject) if not one.raw_output_contents]
    if not typed:
        raise NotApplicable("answers with raw contents only")
    for response in typed:
        try:
            read(response)
        except Malformed as error:
            fields = ", ".join(FIELDS[o.datatype] for o in response.outputs if o.datatype in FIELDS)
            raise Failure(f"contents in {fields}", str(error)) from error


@tensor_data("core-infer-016", UNARY, "ModelInferRequest.raw_input_contents")
def raw_and_typed_agree(subject: Subject) -> None:
    """Raw and typed contents of the same values have the same results."""
    subject.need_stable()
    same(subject.outputs(subject.typed()), subject.outputs(subject.request()))


@infer("core-infer-017", UNARY, "ModelInferResponse.outputs", level=SHOULD)
def same_request_same_results(subject: Subject) -> None:
    """The same request again has the same results."""
    subject.need_stable()
    first = subject.outputs(subject.request())
    for _ in range(3):
        same(subject.outputs(subject.request()), first)


@infer("core-infer-018", UNARY, "InferInputTensor.shape")
def rows_do_not_mix(subject: Subject) -> None:
    """Two rows in a batch have the results that each has alone."""
    subject.need_stable()
    subject.need_batch(2)
    one, other = subject.arrays, subject.other()
    together = subject.outputs(subject.request(stacked(one, other)))
    alone = [subject.outputs(subject.request(arrays)) for arrays in (one, other)]
    for row, expected in enumerate(alone):
        if any(array.shape[:1] != (1,) for array in expected.values()):
            raise NotApplicable("an output has no row for each row of the inputs")
        same({name: array[row : row + 1] for name, array in together.items()}, expected)


@infer("core-infer-019", UNARY, "ModelInferResponse.id")
def concurrent_requests_get_their_own(subject: Subject) -> None:
    """Of 32 requests at once, each gets its own id and its own results."""
    kinds = (subject.arrays, subject.other())
    expected = [subject.outputs(subject.request(arrays)) for arrays in kinds]
    calls = [
        (index, subject.endpoint.start(subject.request(kinds[index % 2], id=f"call-{index}")))
        for index in range(CONCURRENT)
    ]
    for index, call in calls:
        answer = _result(call)
        expect(answer.id == f"call-{index}", f"id 'call-{index}'", repr(answer.id))
        _check_own(subject, answer, expected[index % 2])


def _result(call: grpc.Future) -> pb.ModelInferResponse:
    try:
        return call.result()
    except grpc.RpcError as error:
        raise Failure("an answer to each of them", status_of(error)) from error


def _check_own(subject: Subject, answer: pb.ModelInferResponse, expected: Arrays) -> None:
    found = subject.read(answer)
    if subject.is_stable or subject.must_be_stable:
        same(found, expected)
    else:
        expect(set(found) == set(expected), f"outputs {sorted(expected)}", sorted(found))


@infer("core-infer-020", UNARY, "ModelInferRequest.inputs")
def refusal_leaves_no_trace(subject: Subject) -> None:
    """A refused request does not disturb the next one on the same connection."""
    before = subject.outputs(subject.request())
    bad = subject.request(id="bad")
    bad.inputs[0].name = NO_SUCH
    for _ in range(3):
        try:
            subject.endpoint.call("ModelInfer", bad)
        except grpc.RpcError as error:
            expect(error.code().name != "UNAVAILABLE", "a refusal", status_of(error))
        _check_own(subject, subject.infer(subject.request()), before)


@infer("core-infer-021", UNARY, "ModelInferRequest", level=SHOULD)
def unknown_fields_are_ignored(subject: Subject) -> None:
    """A field that a later version of the protocol may add is ignored."""
    # Field 200, a length-delimited "x".
    later = pb.ModelInferRequest.FromString(
        subject.request(id="later").SerializeToString() + b"\xc2\x0c\x01x"
    )
    found = subject.infer(later)
    expect(found.id == "later", "an answer as without it", brief(found))


@infer("core-infer-022", UNARY, "ModelInferRequest.id", level=SHOULD)
def any_letters_may_be_an_id(subject: Subject) -> None:
    """An id of other than English letters comes back."""
    _check_ids(subject, "žluťoučký 🐎", "循環")
