"""Inference responses as JSON, with the outputs that are wanted so as binary data behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from service.oip.tensors import BINARY_SIZE, DATATYPES, Datatype, read_raw
from service.rest.elements import raw_elements, texts
from service.rest.infer_request import WantedForm
from service.rest.json_body import Object, written
from service.rest.parameters import values_of
from unroll.inference import grpc_service_pb2 as pb

# Of an element while its JSON is written: an object of Python's, in a list, and its digits.
_ELEMENT_BYTES = 96


@dataclass(frozen=True)
class InferBody:
    """json_bytes: the length of the JSON, None where nothing follows it."""

    content: bytes
    json_bytes: int | None


def response_bytes(response: pb.ModelInferResponse) -> int:
    """Upper bound of what write_infer() makes of it beside itself, in bytes."""
    size: int = response.ByteSize()
    return 4 * size + _ELEMENT_BYTES * element_count(response)


def element_count(response: pb.ModelInferResponse) -> int:
    return sum(math.prod(output.shape) for output in response.outputs)


def write_infer(response: pb.ModelInferResponse, wanted: WantedForm) -> InferBody:
    """The whole body."""
    found = headed(response)
    if response.parameters:
        found["parameters"] = values_of(response.parameters)
    tail: list[bytes] = []
    found["outputs"] = [
        _output(response, number, wanted, tail) for number in range(len(response.outputs))
    ]
    text = written(found)
    if not tail:
        return InferBody(text, None)
    return InferBody(b"".join((text, *tail)), len(text))


def headed(response: pb.ModelInferResponse) -> Object:
    """What says which request it answers."""
    found = {"model_name": response.model_name, "model_version": response.model_version}
    return found | {"id": response.id} if response.id else found


def _output(
    response: pb.ModelInferResponse, number: int, wanted: WantedForm, tail: list[bytes]
) -> Object:
    output = response.outputs[number]
    found: Object = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    if wanted.is_binary(output.name):
        tail.append(_raw(response, number))
        return found | {"parameters": {BINARY_SIZE: len(tail[-1])}}
    return found | {"data": values(response, number)}


def _raw(response: pb.ModelInferResponse, number: int) -> bytes:
    if response.raw_output_contents:
        raw: bytes = response.raw_output_contents[number]
        return raw
    return raw_elements(*_typed(response, number))


def values(response: pb.ModelInferResponse, number: int) -> list[Any]:
    """Of one of its outputs, in row-major order, as JSON has them."""
    if response.raw_output_contents:
        output, raw = response.outputs[number], response.raw_output_contents[number]
        datatype = DATATYPES[output.datatype]
        array = read_raw(raw, datatype, math.prod(output.shape), output.name)
        found = array.reshape(-1).tolist()
    else:
        datatype, found = _typed(response, number)
    return texts(found) if datatype.name == "BYTES" else found


def _typed(response: pb.ModelInferResponse, number: int) -> tuple[Datatype, list[Any]]:
    output = response.outputs[number]
    datatype = DATATYPES[output.datatype]
    return datatype, list(getattr(output.contents, datatype.contents))
