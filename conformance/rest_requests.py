"""The protocol over REST: requests as JSON with or without binary tensors, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from conformance.cases import Failure, NotApplicable, brief, expect
from conformance.requests import Arrays
from conformance.rest_client import HEADER_LENGTH, Reply, answered
from conformance.subjects import Subject
from conformance.tensors import (
    BYTES,
    DATATYPES,
    RAW_ONLY,
    Malformed,
    from_raw,
    to_array,
    to_raw,
)

BINARY_SIZE = "binary_data_size"


def path_of(subject: Subject, what: str = "", version: str = "") -> str:
    """what: such as "/infer"."""
    versions = f"/versions/{version}" if version else ""
    return f"/v2/models/{quote(subject.model.name, safe='')}{versions}{what}"


# -- requests ----------------------------------------------------------------------------------


def request_of(
    subject: Subject, arrays: Arrays | None = None, nested: bool = False, **parts: Any
) -> dict[str, Any]:
    """An inference request in JSON, of the arrays known to be answered unless some are given.

    parts: further members. Raises NotApplicable.
    """
    return {"inputs": _inputs(subject, arrays, nested), **_said(subject, parts)}


def _said(subject: Subject, parts: dict[str, Any]) -> dict[str, Any]:
    parameters = {**subject.parameters, **parts.pop("parameters", {})}
    return parts | ({"parameters": parameters} if parameters else {})


def _inputs(subject: Subject, arrays: Arrays | None, nested: bool) -> list[dict[str, Any]]:
    arrays = subject.arrays if arrays is None else arrays
    inputs = []
    for tensor in subject.model.inputs:
        if tensor.name in arrays:
            if tensor.datatype in RAW_ONLY:
                raise NotApplicable("an input is FP16 or BF16, which JSON does not hold")
            array = arrays[tensor.name]
            described = _described(tensor.name, tensor.datatype, array)
            inputs.append(described | {"data": _plain(array if nested else array.reshape(-1))})
    return inputs


def _described(name: str, datatype: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(array.shape)}


def _plain(array: NDArray[Any]) -> Any:
    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(one) for one in value]
        return value.decode() if isinstance(value, bytes) else value

    return text(array.tolist())


def binary_request(subject: Subject, **parts: Any) -> tuple[bytes, dict[str, str]]:
    """The same request with binary inputs: its body and its headers."""
    inputs, tail = [], b""
    for tensor in subject.inputs_sent():
        raw = to_raw(tensor.datatype, subject.arrays[tensor.name])
        described = _described(tensor.name, tensor.datatype, subject.arrays[tensor.name])
        inputs.append(described | {"parameters": {BINARY_SIZE: len(raw)}})
        tail += raw
    head = json.dumps({"inputs": inputs, **_said(subject, parts)}).encode()
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return head + tail, headers


# -- responses ---------------------------------------------------------------------------------


def outputs_of(reply: Reply) -> dict[str, NDArray[Any]]:
    """By name. Raises Failure where they are not what they claim."""
    found, place = {}, 0
    for output in outputs_in(answered(reply).found):
        size = output.get("parameters", {}).get(BINARY_SIZE)
        raw = None
        if size is not None:
            raw, place = reply.tail[place : place + size], place + size
        found[output["name"]] = _array(output, raw)
    expect(place == len(reply.tail), f"{place} bytes of binary tensors", len(reply.tail))
    return found


def outputs_in(found: Any) -> Sequence[dict[str, Any]]:
    """Raises Failure."""
    outputs = found.get("outputs") if isinstance(found, dict) else None
    fits = isinstance(outputs, list) and all(
        isinstance(one, dict) and {"name", "datatype", "shape"} <= one.keys() for one in outputs
    )
    expect(fits, "outputs with name, datatype and shape", brief(found))
    assert isinstance(outputs, list), "it was looked at"
    return outputs


def _array(output: Mapping[str, Any], raw: bytes | None) -> NDArray[Any]:
    name, datatype, shape = output["name"], output["datatype"], tuple(output["shape"])
    expect(datatype in DATATYPES, f"{name}: a datatype of the protocol", repr(datatype))
    try:
        if raw is not None:
            return from_raw(datatype, shape, raw)
        return to_array(datatype, output.get("data")).reshape(shape)
    except (Malformed, TypeError, ValueError, OverflowError) as error:
        raise Failure(f"{name}: {datatype} of shape {list(shape)}", str(error)) from error


def text_input(subject: Subject) -> str:
    """The name of the one text that the model needs. Raises NotApplicable."""
    inputs = subject.inputs_sent()
    if [tensor.datatype for tensor in inputs] != [BYTES]:
        raise NotApplicable("it takes other inputs than one text")
    return inputs[0].name
