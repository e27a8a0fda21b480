"""What cases run on: a model with a request that it answers, and the ways to send it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from numpy.typing import NDArray

from conformance import protocol as pb
from conformance import requests
from conformance.cases import Failure, NotApplicable, brief, expect
from conformance.endpoint import Code, Endpoint, Model, Tensor
from conformance.tensors import DATATYPES, Malformed, agree, from_contents, from_raw

Arrays = dict[str, NDArray[Any]]
# Statuses that say that the request is at fault.
REFUSALS = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.RESOURCE_EXHAUSTED,
        Code.UNIMPLEMENTED,
    }
)
# An unknown model may be one that is not loaded.
UNKNOWN_MODEL = REFUSALS | {Code.UNAVAILABLE}
BLAMES = "a status that blames the request, such as INVALID_ARGUMENT"
NO_SUCH = "no-such-name"


@dataclass(frozen=True)
class Subject:
    """A model under test.

    arrays: inputs it answers. steps: inputs of a sequence's requests, if the inputs file has them.
    is_stable: the same request twice was answered alike. is_readable: the answers are tensors.
    must_be_stable: answers that differ are a failure. is_streamed: ModelInfer does not take it.
    """

    endpoint: Endpoint
    model: Model
    arrays: requests.Arrays
    parameters: Mapping[str, object] = field(default_factory=dict)
    steps: tuple[requests.Arrays, ...] = ()
    is_stable: bool = True
    is_readable: bool = True
    must_be_stable: bool = False
    is_streamed: bool = False

    def request(self, arrays: requests.Arrays | None = None, **how: Any) -> pb.ModelInferRequest:
        """Of the arrays known to be answered, unless ``arrays`` are given; see requests.build."""
        how["parameters"] = {**self.parameters, **how.get("parameters", {})}
        return requests.build(self.model, self.arrays if arrays is None else arrays, **how)

    def inputs_sent(self) -> list[Tensor]:
        """The descriptions of the inputs of its request, in order."""
        return [tensor for tensor in self.model.inputs if tensor.name in self.arrays]

    def typed(self, **how: Any) -> pb.ModelInferRequest:
        if not requests.has_typed(self.model, self.arrays):
            raise NotApplicable("an input is FP16 or BF16, which only raw contents hold")
        return self.request(raw=False, **how)

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        return answered(self.endpoint, "ModelInfer", request)

    def read(self, response: pb.ModelInferResponse) -> Arrays:
        """The outputs. A model whose plain answers cannot be read fails the cases on form only."""
        try:
            return read(response)
        except Malformed as error:
            if not self.is_readable:
                raise NotApplicable("its plain answers are malformed, see other cases") from error
            raise Failure("outputs that are what they claim", str(error)) from error

    def outputs(self, request: pb.ModelInferRequest) -> Arrays:
        return self.read(self.infer(request))

    def refuses(
        self, request: pb.ModelInferRequest, codes: Collection[grpc.StatusCode] = REFUSALS
    ) -> str:
        """The message of the refusal."""
        return refused(self.endpoint, "ModelInfer", request, codes)

    def need_stable(self) -> None:
        if not self.is_stable and not self.must_be_stable:
            raise NotApplicable("the same request twice has different answers (see --stable)")

    def need_batch(self, rows: int) -> None:
        largest = self.model.max_batch_size
        if not self.model.has_batch or (largest is not None and largest < rows):
            raise NotApplicable(f"takes no batch of {rows}")

    def other(self) -> requests.Arrays:
        """Arrays of other contents that are answered too; the same where others are refused."""
        others = requests.varied(self.arrays)
        return others if self._takes(self.request(others)) else self.arrays

    def _takes(self, request: pb.ModelInferRequest) -> bool:
        try:
            if not self.is_streamed:
                self.endpoint.call("ModelInfer", request)
                return True
            with self.endpoint.stream() as stream:
                stream.send(request)
                return not any(response.error_message for response in stream.rest())
        except grpc.RpcError:
            return False


def answered(endpoint: Endpoint, rpc: str, request: Any) -> Any:
    """The response. Raises Failure for any status but OK."""
    try:
        return endpoint.call(rpc, request)
    except grpc.RpcError as error:
        raise Failure("an answer", status_of(error)) from error


def refused(
    endpoint: Endpoint,
    rpc: str,
    request: Any,
    codes: Collection[grpc.StatusCode] = REFUSALS,
) -> str:
    """The message of the refusal. Raises Failure for an answer, or another status."""
    wanted = next(iter(codes)).name if len(codes) == 1 else BLAMES
    try:
        response = endpoint.call(rpc, request)
    except grpc.RpcError as error:
        expect(error.code() in codes, wanted, status_of(error))
        return error.details() or ""
    raise Failure(wanted, f"an answer: {brief(response)}")


def status_of(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"


def read(response: pb.ModelInferResponse) -> Arrays:
    """Outputs by name. Raises Malformed."""
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise Malformed(f"{len(raw)} raw buffers for {len(response.outputs)} outputs")
    return {
        output.name: _read_output(output, raw[index] if raw else None)
        for index, output in enumerate(response.outputs)
    }


def _read_output(output: Any, raw: bytes | None) -> NDArray[Any]:
    if output.datatype not in DATATYPES:
        raise Malformed(f"output {output.name!r} has the datatype {output.datatype!r}")
    shape = tuple(output.shape)
    try:
        if raw is not None:
            return from_raw(output.datatype, shape, raw)
        return from_contents(output.datatype, shape, output.contents)
    except Malformed as error:
        raise Malformed(f"output {output.name!r} {list(shape)}: {error}") from error


def same(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Raises Failure where outputs differ, floating point beyond rounding."""
    expect(set(found) == set(expected), f"outputs {sorted(expected)}", sorted(found))
    for name, array in expected.items():
        expect(
            agree(found[name], array),
            f"{name} = {brief(array.tolist())}",
            brief(found[name].tolist()),
        )
