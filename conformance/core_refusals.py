"""Core: ModelInfer where the request is at fault. Each must end in a status, within the deadline.

Statuses that blame the request (subjects.REFUSALS) are expected. UNKNOWN and INTERNAL say
nothing to a caller, and UNAVAILABLE and DEADLINE_EXCEEDED suggest sending the same request again.
"""

from __future__ import annotations

from collections.abc import Sequence

from conformance import protocol as pb
from conformance.cases import CORE, SERVER, SHOULD, UNARY, NotApplicable, Section, expect
from conformance.core_metadata import UNKNOWN_VERSION
from conformance.endpoint import Endpoint
from conformance.requests import inputs_needed
from conformance.subjects import NO_SUCH, UNKNOWN_MODEL, Subject, refused
from conformance.tensors import DATATYPES, item_size

infer = Section(CORE, "ModelInfer")


@infer("core-refuse-001", SERVER, "ModelInferRequest.model_name")
def unknown_model(endpoint: Endpoint) -> None:
    """A request to an unknown model is refused."""
    request = pb.ModelInferRequest(model_name=NO_SUCH)
    request.inputs.add(name="input", datatype="INT64", shape=[1])
    request.raw_input_contents.append(bytes(8))
    refused(endpoint, "ModelInfer", request, UNKNOWN_MODEL)


@infer("core-refuse-002", UNARY, "ModelInferRequest.model_version")
def unknown_version(subject: Subject) -> None:
    """A request to an unknown version is refused."""
    if not subject.model.versions:
        raise NotApplicable("its metadata lists no versions")
    subject.refuses(subject.request(version=UNKNOWN_VERSION), UNKNOWN_MODEL)


@infer("core-refuse-003", SERVER, "ModelInferRequest")
def empty_request(endpoint: Endpoint) -> None:
    """An empty request is refused."""
    refused(endpoint, "ModelInfer", pb.ModelInferRequest(), UNKNOWN_MODEL)


@infer("core-refuse-004", UNARY, "ModelInferRequest.inputs")
def no_inputs(subject: Subject) -> None:
    """A request without inputs is refused."""
    subject.refuses(subject.request({}))


@infer("core-refuse-005", UNARY, "ModelInferRequest.inputs")
def missing_input(subject: Subject) -> None:
    """A request that lacks one of the required inputs is refused."""
    required = [
        t.name for t in inputs_needed(subject.model) if t.name not in subject.model.optional
    ]
    if len(required) < 2:
        raise NotApplicable("fewer than two inputs are required")
    for missing in required:
        subject.refuses(subject.request({n: a for n, a in subject.arrays.items() if n != missing}))


@infer("core-refuse-006", UNARY, "InferInputTensor.name", level=SHOULD)
def unknown_input(subject: Subject) -> None:
    """An input that the model does not have is refused."""
    request = subject.request()
    request.inputs.add(name=NO_SUCH, datatype="INT64", shape=[1])
    request.raw_input_contents.append(bytes(8))
    subject.refuses(request)


@infer("core-refuse-007", UNARY, "InferInputTensor.name", level=SHOULD)
def input_sent_twice(subject: Subject) -> None:
    """The same input sent twice is refused."""
    request = subject.request()
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    subject.refuses(request)


@infer("core-refuse-008", UNARY, "InferRequestedOutputTensor.name")
def unknown_output(subject: Subject) -> None:
    """An output that the model does not have is refused."""
    subject.refuses(subject.request(outputs=[NO_SUCH]))


@infer("core-refuse-009", UNARY, "InferInputTensor.datatype")
def unknown_datatype(subject: Subject) -> None:
    """A datatype that the protocol does not have is refused."""
    request = subject.request()
    request.inputs[0].datatype = "FP12"
    subject.refuses(request)


@infer("core-refuse-010", UNARY, "InferInputTensor.datatype")
def other_datatype(subject: Subject) -> None:
    """A datatype other than the model's is refused, though its elements are as large."""
    request = subject.request()
    first = request.inputs[0]
    first.datatype = next(
        other
        for other in ("UINT64", "INT32", "UINT8", "UINT16", "FP64", *DATATYPES)
        if other != first.datatype and item_size(other) == item_size(first.datatype)
    )
    subject.refuses(request)


@infer("core-refuse-011", UNARY, "InferInputTensor.shape")
def other_fixed_dimension(subject: Subject) -> None:
    """A size other than the model's fixed one is refused."""
    for index, tensor in enumerate(subject.inputs_sent()):
        fixed = [axis for axis, size in enumerate(tensor.shape) if size > 0]
        if fixed:
            request = subject.request()
            request.inputs[index].shape[fixed[-1]] *= 2
            request.raw_input_contents[index] *= 2
            subject.refuses(request)
            return
    raise NotApplicable("no input has a fixed dimension")


@infer("core-refuse-012", UNARY, "InferInputTensor.shape")
def other_rank(subject: Subject) -> None:
    """Two dimensions more than the model's are refused."""
    request = subject.request()
    request.inputs[0].shape.extend([1, 1])
    subject.refuses(request)


@infer("core-refuse-013", UNARY, "InferInputTensor.shape")
def negative_dimension(subject: Subject) -> None:
    """A negative dimension is refused: only metadata may say -1."""
    request = subject.request()
    _need_dimensions(request)
    for axis in range(len(request.inputs[0].shape)):
        for size in (-1, -(2**63)):
            bad = subject.request()
            bad.inputs[0].shape[axis] = size
            subject.refuses(bad)


def _need_dimensions(request: pb.ModelInferRequest) -> None:
    if not request.inputs[0].shape:
        raise NotApplicable("the first input is a scalar")


@infer("core-refuse-026", UNARY, "InferInputTensor.shape")
def huge_shape_raw(subject: Subject) -> None:
    """A shape of more than 2 ** 40 elements over a few raw bytes is refused within the deadline."""
    request = subject.request()
    _enlarge(request, [2**41] * len(request.inputs))
    subject.refuses(request)


@infer("core-refuse-027", UNARY, "InferInputTensor.shape")
def huge_shape_typed(subject: Subject) -> None:
    """The same over typed contents of a few elements is refused within the deadline."""
    request = subject.typed()
    _enlarge(request, [2**41] * len(request.inputs))
    subject.refuses(request)


def _enlarge(request: pb.ModelInferRequest, elements: Sequence[int]) -> None:
    """Shapes of the same ranks that claim so many elements, powers of two."""
    _need_dimensions(request)
    for tensor, claimed in zip(request.inputs, elements, strict=True):
        rank, bits = len(tensor.shape), claimed.bit_length() - 1
        tensor.shape[:] = [1] * rank
        if rank == 1:
            tensor.shape[0] = claimed
        elif rank > 1:
            tensor.shape[0], tensor.shape[1] = 2 ** (bits // 2), 2 ** (bits - bits // 2)


@infer("core-refuse-028", UNARY, "InferInputTensor.shape")
def size_overflows(subject: Subject) -> None:
    """A shape whose size in bytes is 0 modulo 2 ** 64, over no bytes, is refused."""
    request = subject.request()
    if any(len(t.shape) == 1 and item_size(t.datatype) < 4 for t in request.inputs):
        raise NotApplicable("one dimension of such small elements cannot overflow")
    _enlarge(request, [2**64 // item_size(t.datatype) for t in request.inputs])
    request.raw_input_contents[:] = [b""] * len(request.inputs)
    subject.refuses(request)


@infer("core-refuse-029", UNARY, "google.rpc.Status.message", level=SHOULD)
def refusals_say_why(subject: Subject) -> None:
    """A refusal says in words what is wrong."""
    for request in (subject.request({}), subject.request(outputs=[NO_SUCH])):
        message = subject.refuses(request)
        expect(len(message) > 3, "a message", repr(message))
