"""How the reference server reads a request. A fault is a subclass that reads worse."""

from __future__ import annotations

from typing import Any

import grpc
from numpy.typing import NDArray

from conformance.endpoint import Tensor
from conformance.tensors import Malformed, from_contents, from_raw
from tests.conformance.reference_models import Arrays, ReferenceModel
from unroll.inference import grpc_service_pb2 as pb

Code = grpc.StatusCode
InputTensor = pb.ModelInferRequest.InferInputTensor


class Refusal(Exception):
    """What is wrong with a request, and the status that says so."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def invalid(message: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, message)


class Reader:
    """Requests into arrays. Everything raises Refusal."""

    def read(self, model: ReferenceModel, request: pb.ModelInferRequest) -> Arrays:
        self.check_names(model, request)
        self.check_contents(request)
        described = {tensor.name: tensor for tensor in model.inputs}
        raw = request.raw_input_contents
        return {
            sent.name: self.read_tensor(
                described[sent.name], sent, raw[index] if index < len(raw) else None
            )
            for index, sent in enumerate(request.inputs)
        }

    def check_names(self, model: ReferenceModel, request: pb.ModelInferRequest) -> None:
        names = [tensor.name for tensor in request.inputs]
        known = [tensor.name for tensor in model.inputs]
        if sorted(names) != sorted(known):
            raise invalid(f"{model.name!r} takes the inputs {known}, each once, not {names}")

    def check_contents(self, request: pb.ModelInferRequest) -> None:
        raw = len(request.raw_input_contents)
        typed = [tensor.name for tensor in request.inputs if tensor.HasField("contents")]
        if raw and typed:
            raise invalid(f"{typed} have typed contents beside raw ones; send one kind")
        if raw and raw != len(request.inputs):
            raise invalid(f"{raw} raw buffers for {len(request.inputs)} inputs; send one each")

    def read_tensor(self, tensor: Tensor, sent: InputTensor, raw: bytes | None) -> NDArray[Any]:
        if sent.datatype != tensor.datatype:
            raise invalid(f"{tensor.name} is {tensor.datatype}, not {sent.datatype!r}")
        self.check_shape(tensor, tuple(sent.shape))
        try:
            if raw is not None:
                return self.from_raw(sent, raw)
            return from_contents(sent.datatype, tuple(sent.shape), sent.contents)
        except Malformed as error:
            raise invalid(f"{tensor.name} {list(sent.shape)}: {error}") from error

    def check_shape(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        fits = len(shape) == len(tensor.shape) and all(
            size == wanted or (wanted < 0 < size)
            for size, wanted in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise invalid(f"{tensor.name} is {list(tensor.shape)}, not {list(shape)}")

    def from_raw(self, sent: InputTensor, raw: bytes) -> NDArray[Any]:
        return from_raw(sent.datatype, tuple(sent.shape), raw)
