"""Triton's generate extension: one flat JSON object for a model's tensors and parameters.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.engine.errors import WrongInput
from service.oip.adapters import ModelAdapter
from service.oip.infer import FINAL
from service.oip.tensors import DATATYPES, TensorMetadata
from service.rest import json_body
from service.rest.elements import elements_of, flattened
from service.rest.infer_response import headed, values
from service.rest.json_body import Object, quoted
from service.rest.parameters import set_parameters, values_of
from unroll.inference import grpc_service_pb2 as pb

# The extension's own names of the text that goes in and of the one that comes out.
TEXT_IN, TEXT_OUT = "text_input", "text_output"
_TEXT = "text"  # ours of the latter
# Triton's models of large language models know whether to stream by it; here the path says so.
_STREAM = "stream"


def read_generate(
    model: str, version: str, body: bytes, adapter: ModelAdapter, is_stream: bool
) -> pb.ModelInferRequest:
    """What is named as an input is one, ``text_input`` is the model's text; the rest, and what is
    in ``parameters``, are parameters. Raises WrongInput."""
    found = json_body.read_object(body)
    request = pb.ModelInferRequest(
        model_name=model, model_version=version, id=json_body.text(found, "id")
    )
    ports = {port.name: port for port in adapter.inputs}
    if TEXT_IN not in ports and (text := _text_port(adapter)):
        ports[TEXT_IN] = text
    parameters = dict(json_body.nested(found, "parameters"))
    for name, value in found.items():
        if name in ports:
            _add_input(request, ports[name], name, value)
        elif name == TEXT_IN:
            raise WrongInput(
                f"{TEXT_IN!r} is set, and model {quoted(model)} reads no text; it takes "
                f"{', '.join(ports)}"
            )
        elif name not in ("id", "parameters"):
            if name in parameters:
                raise WrongInput(f"{quoted(name)} comes in 'parameters', too; send it once")
            parameters[name] = value
    _check_stream(parameters.pop(_STREAM, is_stream), is_stream)
    set_parameters(request.parameters, parameters)
    return request


def _text_port(adapter: ModelAdapter) -> TensorMetadata | None:
    return next((port for port in adapter.inputs if port.datatype == "BYTES"), None)


def _check_stream(wanted: Any, is_stream: bool) -> None:
    if wanted is not is_stream:
        raise WrongInput(
            f"{_STREAM!r} is {quoted(wanted)}; "
            + ("send the request to generate" if is_stream else "send the request to "
               "generate_stream")
            + ", or leave it out"
        )  # fmt: skip


def _add_input(request: pb.ModelInferRequest, port: TensorMetadata, name: str, value: Any) -> None:
    """A tensor of a value, or of a list nested as the tensor is; leading dimensions of 1 may be
    left out."""
    what = f"input {quoted(name)}"
    datatype = DATATYPES[port.datatype]
    nested = value if isinstance(value, list) else [value]
    shape = _shape(nested)
    elements = elements_of(datatype, flattened(nested, shape, what), what)
    added = request.inputs.add(name=port.name, datatype=port.datatype, shape=_led(shape, port))
    getattr(added.contents, datatype.contents).extend(elements)


def _shape(nested: list[Any]) -> list[int]:
    """By the first element of each list."""
    shape, level = [len(nested)], nested
    while level and isinstance(level[0], list):
        level = level[0]
        shape.append(len(level))
    return shape


def _led(shape: list[int], port: TensorMetadata) -> list[int]:
    is_one_a_row = port.shape[1:] == (1,) and len(shape) == 1
    return shape if is_one_a_row else [1] * (len(port.shape) - len(shape)) + shape


def write_generate(response: pb.ModelInferResponse, outputs: Sequence[TensorMetadata]) -> Object:
    """What it is of, its parameters and its outputs side by side, as Triton has them.

    outputs: of the model. One value stands alone, unless its tensor has any number of them.
    """
    found = headed(response) | values_of(response.parameters)
    found.pop(FINAL, None)
    lists = {port.name for port in outputs if port.shape == (-1,)}
    for number, output in enumerate(response.outputs):
        data = values(response, number)
        is_one = len(data) == 1 and output.name not in lists
        found[TEXT_OUT if output.name == _TEXT else output.name] = data[0] if is_one else data
    return found
