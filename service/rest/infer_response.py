"""Inference responses as JSON, with the outputs that are wanted so as binary data behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from service.oip.tensors import BINARY_SIZE, DATATYPES, Datatype, read_raw
from service.rest.elements import raw_elements, texts
from service.rest.infer_request import WantedForm
from service.rest.json_body import Object, parts_of, written, written_list
from service.rest.parameters import values_of
from unroll.inference import grpc_service_pb2 as pb

# Of an element: its digits, in a part of the JSON and in the whole.
_ELEMENT_BYTES = 48


@dataclass(frozen=True)
class InferBody:
    """json_bytes: the length of the JSON, None where nothing follows it."""

    content: bytes
    json_bytes: int | None


def response_bytes(response: pb.ModelInferResponse) -> int:
    """Of what write_infer() makes of it beside itself."""
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
    outputs = [_output(response, number, wanted, tail) for number in range(len(response.outputs))]
    text = b'%b,"outputs":[%b]}' % (written(found)[:-1], b",".join(outputs))
    return InferBody(b"".join((text, *tail)), len(text) if tail else None)


def headed(response: pb.ModelInferResponse) -> Object:
    """What says which request it answers."""
    found = {"model_name": response.model_name, "model_version": response.model_version}
    return found | {"id": response.id} if response.id else found


def _output(
    response: pb.ModelInferResponse, number: int, wanted: WantedForm, tail: list[bytes]
) -> bytes:
    """Its JSON; tail: gets what comes behind all JSON."""
    output = response.outputs[number]
    found: Object = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    if wanted.is_binary(output.name):
        tail.append(_raw(response, number))
        return written(found | {"parameters": {BINARY_SIZE: len(tail[-1])}})
    return b'%b,"data":%b}' % (written(found)[:-1], written_list(_parts(response, number)))


def values(response: pb.ModelInferResponse, number: int) -> list[Any]:
    """Of one of its outputs, in row-major order, as JSON has them."""
    return list(chain.from_iterable(_parts(response, number)))


def _raw(response: pb.ModelInferResponse, number: int) -> bytes:
    if response.raw_output_contents:
        raw: bytes = response.raw_output_contents[number]
        return raw
    return raw_elements(_datatype(response, number), list(_typed(response, number)))


def _parts(response: pb.ModelInferResponse, number: int) -> Iterator[list[Any]]:
    datatype = _datatype(response, number)
    if response.raw_output_contents:
        output, raw = response.outputs[number], response.raw_output_contents[number]
        array = read_raw(raw, datatype, math.prod(output.shape), output.name)
        found = (part.tolist() for part in parts_of(array))
    else:
        found = (list(part) for part in parts_of(_typed(response, number)))
    return map(texts, found) if datatype.name == "BYTES" else found


def _datatype(response: pb.ModelInferResponse, number: int) -> Datatype:
    return DATATYPES[response.outputs[number].datatype]


def _typed(response: pb.ModelInferResponse, number: int) -> Any:
    contents = response.outputs[number].contents
    return getattr(contents, _datatype(response, number).contents)
