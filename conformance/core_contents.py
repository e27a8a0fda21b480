"""Core: ModelInfer where contents are not what the tensors claim; see core_refusals.py."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

from conformance import protocol as pb
from conformance.cases import CORE, UNARY, NotApplicable, Section
from conformance.endpoint import Code
from conformance.subjects import Subject
from conformance.tensors import BYTES, FIELDS

tensor_data = Section(CORE, "Tensor data")


@tensor_data("core-refuse-014", UNARY, "ModelInferRequest.raw_input_contents")
def raw_and_typed(subject: Subject) -> None:
    """Raw and typed contents in one request are refused with INVALID_ARGUMENT."""
    request = subject.typed()
    request.raw_input_contents.extend(subject.request().raw_input_contents)
    subject.refuses(request, {Code.INVALID_ARGUMENT})


@tensor_data("core-refuse-015", UNARY, "ModelInferRequest.raw_input_contents")
def raw_beside_one_typed(subject: Subject) -> None:
    """One input with typed contents among raw ones is refused with INVALID_ARGUMENT."""
    typed, request = subject.typed(), subject.request()
    request.inputs[-1].contents.CopyFrom(typed.inputs[-1].contents)
    subject.refuses(request, {Code.INVALID_ARGUMENT})


@tensor_data("core-refuse-016", UNARY, "ModelInferRequest.raw_input_contents")
def too_few_buffers(subject: Subject) -> None:
    """Fewer raw buffers than inputs are refused."""
    request = subject.request()
    del request.raw_input_contents[-1]
    subject.refuses(request)


@tensor_data("core-refuse-017", UNARY, "ModelInferRequest.raw_input_contents")
def too_many_buffers(subject: Subject) -> None:
    """More raw buffers than inputs are refused."""
    request = subject.request()
    request.raw_input_contents.append(request.raw_input_contents[-1])
    subject.refuses(request)


def _spoil_raw(subject: Subject, change: Callable[[bytes], bytes], only_bytes: bool) -> None:
    """Each raw buffer, of BYTES or of numbers, changed in turn; all must be refused."""
    chosen = [
        index
        for index, tensor in enumerate(subject.inputs_sent())
        if (tensor.datatype == BYTES) == only_bytes
    ]
    if not chosen:
        raise NotApplicable(f"has no input of {BYTES if only_bytes else 'numbers'}")
    for index in chosen:
        request = subject.request()
        request.raw_input_contents[index] = change(request.raw_input_contents[index])
        subject.refuses(request)


@tensor_data("core-refuse-018", UNARY, "ModelInferRequest.raw_input_contents")
def buffer_is_short(subject: Subject) -> None:
    """A raw buffer a byte shorter than its shape is refused."""
    _spoil_raw(subject, lambda raw: raw[:-1], only_bytes=False)


@tensor_data("core-refuse-019", UNARY, "ModelInferRequest.raw_input_contents")
def buffer_is_long(subject: Subject) -> None:
    """A raw buffer a byte longer than its shape is refused."""
    _spoil_raw(subject, lambda raw: raw + b"\0", only_bytes=False)


@tensor_data("core-refuse-020", UNARY, "ModelInferRequest.raw_input_contents")
def bytes_are_truncated(subject: Subject) -> None:
    """A buffer of BYTES that ends inside its last element is refused."""
    _spoil_raw(subject, lambda raw: raw[:-1], only_bytes=True)


@tensor_data("core-refuse-021", UNARY, "ModelInferRequest.raw_input_contents")
def length_runs_past_the_end(subject: Subject) -> None:
    """A length that runs past the end of a buffer of BYTES is refused."""
    for length in (2**32 - 1, 2**31, 2**20):
        _spoil_raw(subject, partial(_with_length, length), only_bytes=True)


def _with_length(length: int, raw: bytes) -> bytes:
    """A buffer of BYTES whose first element claims ``length`` bytes."""
    return struct.pack("<I", length) + raw[4:]


@tensor_data("core-refuse-022", UNARY, "ModelInferRequest.raw_input_contents")
def bytes_has_another_count(subject: Subject) -> None:
    """A buffer of BYTES with an element more than its shape, or half a length, is refused."""
    for more in (struct.pack("<I", 1) + b"x", b"\1\0"):
        _spoil_raw(subject, partial(_with_appended, more), only_bytes=True)


def _with_appended(more: bytes, raw: bytes) -> bytes:
    return raw + more


def _spoil_typed(subject: Subject, change: Callable[[list], list]) -> None:
    """The typed contents of each input changed in turn; all must be refused."""
    for index in range(len(subject.typed().inputs)):
        request = subject.typed()
        tensor = request.inputs[index]
        field = FIELDS[tensor.datatype]
        values = change(list(getattr(tensor.contents, field)))
        tensor.contents.CopyFrom(pb.InferTensorContents(**{field: values}))
        subject.refuses(request)


@tensor_data("core-refuse-023", UNARY, "InferInputTensor.contents")
def too_few_elements(subject: Subject) -> None:
    """Typed contents with an element fewer than the shape are refused."""
    _spoil_typed(subject, lambda values: values[:-1])


@tensor_data("core-refuse-024", UNARY, "InferInputTensor.contents")
def too_many_elements(subject: Subject) -> None:
    """Typed contents with an element more than the shape are refused."""
    _spoil_typed(subject, lambda values: [*values, values[0]])


@tensor_data("core-refuse-025", UNARY, "InferTensorContents")
def contents_in_another_field(subject: Subject) -> None:
    """Typed contents in the field of another datatype are refused."""
    request = subject.typed()
    tensor = request.inputs[0]
    count = len(getattr(tensor.contents, FIELDS[tensor.datatype]))
    other = "fp64_contents" if tensor.datatype != "FP64" else "fp32_contents"
    tensor.contents.CopyFrom(pb.InferTensorContents(**{other: [1.0] * count}))
    subject.refuses(request)
