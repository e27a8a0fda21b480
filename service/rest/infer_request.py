"""Inference requests in JSON, with or without binary data behind it, as the protocol's message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.engine.errors import WrongInput
from service.oip.tensors import BINARY_SIZE, DATATYPES
from service.rest import json_body
from service.rest.elements import elements_of, flattened, raw_elements
from service.rest.json_body import Object
from service.rest.parameters import set_parameters
from unroll.inference import grpc_service_pb2 as pb

# The model's name and version are in the path, and KServe's client repeats them.
_REQUEST = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_INPUT = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT = ("name", "parameters")
_BINARY, _BINARY_OUTPUT = "binary_data", "binary_data_output"


@dataclass(frozen=True)
class WantedForm:
    """Which outputs are to come as binary data: by name, and all others."""

    others: bool = False
    by_name: Mapping[str, bool] = field(default_factory=dict)

    def is_binary(self, name: str) -> bool:
        return self.by_name.get(name, self.others)


def read_infer(
    model: str, version: str, body: bytes, header_length: int | None
) -> tuple[pb.ModelInferRequest, WantedForm]:
    """model, version: of the path. header_length: bytes of the JSON, None where all is JSON.

    Raises WrongInput.
    """
    length = len(body) if header_length is None else header_length
    if length > len(body):
        raise WrongInput(
            f"Inference-Header-Content-Length is {length}, and the request has {len(body)} bytes"
        )
    if length == 0:
        raise WrongInput("the request has no JSON; send an object with 'inputs'")
    found = json_body.read_object(body[:length])
    json_body.only(found, _REQUEST)
    request = pb.ModelInferRequest(
        model_name=model, model_version=version, id=json_body.text(found, "id")
    )
    parameters = json_body.nested(found, "parameters")
    set_parameters(request.parameters, parameters)
    _Inputs(request, body, length).add_all(json_body.objects(found, "inputs"))
    by_name = {}
    for output in json_body.objects(found, "outputs"):
        name, is_binary = _add_output(request, output)
        if is_binary is not None:
            by_name[name] = is_binary
    return request, WantedForm(_truth(parameters, _BINARY_OUTPUT) or False, by_name)


class _Inputs:
    """Adds inputs to a message: all of them raw where one of them is, as the message has it."""

    def __init__(self, request: pb.ModelInferRequest, body: bytes, start: int) -> None:
        """start: of the binary data in ``body``."""
        self._request, self._body, self._place = request, body, start

    def add_all(self, given: list[Object]) -> None:
        """Raises WrongInput."""
        is_raw = any(BINARY_SIZE in json_body.nested(tensor, "parameters") for tensor in given)
        for tensor in given:
            self._add(tensor, is_raw)
        if self._place != len(self._body):
            raise WrongInput(
                f"{len(self._body) - self._place} bytes follow the request's JSON and the binary "
                f"data of its inputs; say in each input's {BINARY_SIZE!r} how many are its own"
            )

    def _add(self, given: Object, is_raw: bool) -> None:
        name = json_body.text(given, "name", "an input's ")
        what = f"input {json_body.quoted(name)}"
        json_body.only(given, _INPUT, what)
        added = self._request.inputs.add(
            name=name,
            datatype=json_body.text(given, "datatype", f"{what}: "),
            shape=json_body.shape(given, f"{what}: "),
        )
        parameters = json_body.nested(given, "parameters", f"{what}: ")
        set_parameters(added.parameters, parameters, f"of {what}: ")
        data = json_body.member(given, "data", list, "a list", f"{what}: ")
        if BINARY_SIZE in parameters:
            if data is not None:
                raise WrongInput(f"{what} has data and {BINARY_SIZE!r}; send one of the two")
            self._request.raw_input_contents.append(self._take(parameters[BINARY_SIZE], what))
        elif data is not None:
            self._set_data(added, data, is_raw, what)
        elif not parameters:  # shared memory is refused as everywhere
            raise WrongInput(f"{what} has no data; send a list, or binary data")

    def _take(self, size: Any, what: str) -> bytes:
        """The next of the binary data. Raises WrongInput."""
        if type(size) is not int or size < 0:
            json_body.refuse(f"{what}: {BINARY_SIZE!r}", size, "a whole number from 0")
        end = self._place + size
        if end > len(self._body):
            raise WrongInput(
                f"{what} has {len(self._body) - self._place} bytes of binary data, and its "
                f"{BINARY_SIZE!r} says {size}"
            )
        taken = self._body[self._place : end]
        self._place = end
        return taken

    def _set_data(self, added: Any, data: list[Any], is_raw: bool, what: str) -> None:
        datatype = DATATYPES.get(added.datatype)
        if datatype is None:
            return  # which is refused as everywhere, with the datatype that the model takes
        elements = elements_of(datatype, flattened(data, added.shape, what), what)
        if is_raw:
            self._request.raw_input_contents.append(raw_elements(datatype, elements))
        else:
            getattr(added.contents, datatype.contents).extend(elements)


def _add_output(request: pb.ModelInferRequest, given: Object) -> tuple[str, bool | None]:
    """Its name, and whether it is to be binary (None: it says nothing). Raises WrongInput."""
    name = json_body.text(given, "name", "an output's ")
    what = f"output {json_body.quoted(name)}"
    json_body.only(given, _OUTPUT, what)
    parameters = json_body.nested(given, "parameters", f"{what}: ")
    added = request.outputs.add(name=name)
    set_parameters(added.parameters, parameters, f"of {what}: ")
    return name, _truth(parameters, _BINARY, f"{what}: ")


def _truth(parameters: Object, name: str, what: str = "") -> bool | None:
    """Raises WrongInput."""
    value: bool | None = json_body.member(parameters, name, bool, "true or false", what)
    return value
