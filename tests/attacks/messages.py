"""Messages that more than one attack sends."""

from __future__ import annotations

from unroll.inference import grpc_service_pb2 as inference
from unroll.v1 import unroll_pb2 as pb

# Two bytes each: as many as the largest message holds.
EMPTY_ITEMS = 524_000


def empty_items(model: str, field: int, count: int = EMPTY_ITEMS) -> bytes:
    """A Tag or a Score of so many empty items: ``field`` of its messages, two bytes each."""
    head = pb.TagRequest(model=model).SerializeToString()
    return head + bytes([field << 3 | 2, 0]) * count


def tensors_of(model: str, rows: int, time_: int) -> inference.ModelInferRequest:
    """Zeros for tokens; zipped they are a few hundred bytes, answered with megabytes."""
    request = inference.ModelInferRequest(model_name=f"{model}.tensors")
    for name, shape in (("tokens", (rows, time_)), ("lengths", (rows,))):
        tensor = request.inputs.add(name=name, datatype="INT64", shape=shape)
        tensor.contents.int64_contents.extend(
            [1] * (rows * time_) if name == "tokens" else [time_] * rows
        )
    return request


def step_of(model: str, **parameters: str | bool) -> inference.ModelInferRequest:
    """One token into a sequence."""
    request = inference.ModelInferRequest(model_name=f"{model}.tensors")
    for name, shape in (("tokens", (1, 1)), ("lengths", (1,))):
        tensor = request.inputs.add(name=name, datatype="INT64", shape=shape)
        tensor.contents.int64_contents.append(1)
    for name, value in parameters.items():
        if isinstance(value, bool):
            request.parameters[name].bool_param = value
        else:
            request.parameters[name].string_param = value
    return request
