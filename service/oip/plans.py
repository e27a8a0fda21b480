"""What requests that differ in contents alone have in common: found out once, then kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from service.oip.tensors import (
    Array,
    InputSpec,
    add_outputs,
    add_typed,
    come_raw_only,
    raw_of,
)
from unroll.inference import grpc_service_pb2 as pb

# Of one version: plans, and layouts of the responses of each.
_MOST_PLANS, _MOST_LAYOUTS = 64, 64
# Tensors of a request that has a signature.
_MOST_TENSORS = 8


def signature_of(request: pb.ModelInferRequest) -> Hashable | None:
    """All that a request says beside its id and its raw contents: names, datatypes and shapes.

    None where it says more, such as parameters.
    """
    inputs, outputs = request.inputs, request.outputs
    count = len(inputs)
    if (
        request.parameters
        or len(request.raw_input_contents) != count
        or count + len(outputs) > _MOST_TENSORS
    ):
        return None
    parts: list[Hashable] = [request.model_name, request.model_version, count]
    for tensor in inputs:
        if tensor.parameters or tensor.HasField("contents"):
            return None
        parts += (tensor.name, tensor.datatype, *tensor.shape)
    for output in outputs:
        if output.parameters:
            return None
        parts.append(output.name)
    return tuple(parts)


class Plan:
    """How requests of one version are read and answered, whatever they contain.

    inputs: theirs. outputs: what is wanted, by name, and of how many labels each as texts (0: the
    numbers).
    """

    __slots__ = ("_heads", "_heads_of_rows", "inputs", "is_plain", "outputs")

    def __init__(self, inputs: Sequence[InputSpec], outputs: Mapping[str, int]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.is_plain = not any(outputs.values())
        # Of responses, serialized, by the datatypes and shapes of their tensors, and by their rows.
        self._heads: dict[Hashable, bytes] = {}
        self._heads_of_rows: dict[int, bytes] = {}

    def response(
        self, request: pb.ModelInferRequest, version: str, arrays: Mapping[str, Array]
    ) -> pb.ModelInferResponse:
        """With ``arrays``, raw where the request's are or where one of them comes raw only.

        version: that the model has.
        """
        layout = tuple([(array.dtype.char, array.shape) for array in arrays.values()])
        head = self._heads.get(layout)
        if head is None:
            head = _head(request.model_name, version, arrays)
            if len(self._heads) < _MOST_LAYOUTS:
                self._heads[layout] = head
        response: pb.ModelInferResponse = pb.ModelInferResponse.FromString(head)
        if request.id:
            response.id = request.id
        if request.raw_input_contents or come_raw_only(arrays.values()):
            response.raw_output_contents.extend([raw_of(array) for array in arrays.values()])
        else:
            add_typed(response, arrays.values())
        return response

    def raw_response(
        self, request: pb.ModelInferRequest, rows: int, raw: Mapping[str, bytes]
    ) -> pb.ModelInferResponse | None:
        """As response(), of outputs that are bytes already and of so many rows each; None where
        keep_for() has not seen one like it."""
        head = self._heads_of_rows.get(rows)
        if head is None:
            return None
        response: pb.ModelInferResponse = pb.ModelInferResponse.FromString(head)
        if request.id:
            response.id = request.id
        response.raw_output_contents.extend([raw[name] for name in self.outputs])
        return response

    def keep_for(self, rows: int, response: pb.ModelInferResponse) -> None:
        """``response`` shows what those of so many rows are like but for their contents."""
        if len(self._heads_of_rows) < _MOST_LAYOUTS:
            head = pb.ModelInferResponse(
                model_name=response.model_name,
                model_version=response.model_version,
                outputs=response.outputs,
            )
            self._heads_of_rows[rows] = head.SerializeToString()


def _head(name: str, version: str, arrays: Mapping[str, Array]) -> bytes:
    response = pb.ModelInferResponse(model_name=name, model_version=version)
    add_outputs(response, arrays)
    data: bytes = response.SerializeToString()
    return data


class Plans:
    """Those of one version that is served, by signature."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: dict[Hashable, Plan] = {}

    def get(self, signature: Hashable) -> Plan | None:
        return self._plans.get(signature)

    def keep(self, signature: Hashable, plan: Plan) -> None:
        if len(self._plans) >= _MOST_PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[signature] = plan
