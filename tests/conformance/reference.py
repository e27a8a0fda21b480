"""A small correct server of the whole protocol, to test the suite with.

Its steps are methods of their own, so that a server with a fault is a subclass (broken.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from conformance.tensors import RAW_ONLY, to_contents, to_raw
from tests.conformance.reference_describing import VERSION, Describing, refusing
from tests.conformance.reference_models import Arrays, ReferenceModel, State
from tests.conformance.reference_reading import Code, Reader, Refusal, invalid
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference.grpc_service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

FINAL = "triton_final_response"
ENABLE_EMPTY_FINAL = "triton_enable_empty_final_response"
_STATISTICS = ("success", "queue", "compute_input", "compute_infer", "compute_output")

Responses = Iterator[pb.ModelStreamInferResponse]


@dataclass
class Sequences:
    """State by model and id. owner: the stream that began the sequence, else None."""

    states: dict[tuple[str, str], State] = field(default_factory=dict)
    owners: dict[tuple[str, str], object] = field(default_factory=dict)


class ReferenceServer(Describing):
    """Serves reference_models.MODELS."""

    reader: Reader = Reader()

    def __init__(self) -> None:
        super().__init__()
        self.sequences = Sequences()

    # -- inference

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        with refusing(context):
            model = self.find(request.model_name, request.model_version)
            if model.is_decoupled:
                raise Refusal(Code.UNIMPLEMENTED, f"{model.name!r} answers ModelStreamInfer only")
            (answer,) = self.answers(model, request, None)
            return answer

    def answers(
        self, model: ReferenceModel, request: pb.ModelInferRequest, stream: object
    ) -> Iterator[pb.ModelInferResponse]:
        begun = time.monotonic_ns()
        requested = self.outputs_requested(model, request)
        arrays = self.reader.read(model, request)
        rows = len(next(iter(arrays.values()))) if model.max_batch_size else 1
        if model.max_batch_size and rows > model.max_batch_size:
            raise invalid(f"{rows} rows; {model.name!r} takes {model.max_batch_size} at most")
        with self.state_of(model, request, stream) as state:
            try:
                for outputs in model.compute(arrays, state):
                    yield self.answer(model, request, {name: outputs[name] for name in requested})
            except ValueError as error:
                raise invalid(str(error)) from error
        self.count(model, rows, time.monotonic_ns() - begun)

    def outputs_requested(self, model: ReferenceModel, request: pb.ModelInferRequest) -> list[str]:
        known = [tensor.name for tensor in model.outputs]
        requested = [output.name for output in request.outputs]
        if not set(requested) <= set(known):
            raise invalid(f"{model.name!r} has the outputs {known}, not {requested}")
        return requested or known

    def answer(
        self, model: ReferenceModel, request: pb.ModelInferRequest, outputs: Arrays
    ) -> pb.ModelInferResponse:
        """Raw to a raw request, typed to a typed one."""
        answer = pb.ModelInferResponse(model_name=model.name, model_version=VERSION, id=request.id)
        kinds = {tensor.name: tensor.datatype for tensor in model.outputs}
        is_raw = bool(request.raw_input_contents) or not set(RAW_ONLY).isdisjoint(kinds.values())
        for name, array in outputs.items():
            output = answer.outputs.add(name=name, datatype=kinds[name], shape=array.shape)
            if is_raw:
                answer.raw_output_contents.append(self.to_raw(kinds[name], array))
            else:
                output.contents.ParseFromString(to_contents(kinds[name], array).SerializeToString())
        return answer

    def to_raw(self, datatype: str, array: Any) -> bytes:
        return to_raw(datatype, array)

    def count(self, model: ReferenceModel, rows: int, nanoseconds: int) -> None:
        with self.lock:
            statistics = self.statistics[model.name]
            statistics.inference_count += rows
            statistics.execution_count += 1
            statistics.last_inference = int(time.time() * 1000)
            for name in _STATISTICS:
                duration = getattr(statistics.inference_stats, name)
                duration.count += 1
                duration.ns += nanoseconds

    # -- sequences

    @contextmanager
    def state_of(
        self, model: ReferenceModel, request: pb.ModelInferRequest, stream: object
    ) -> Iterator[State]:
        """The state that the request goes on from; stored unless the request is the last."""
        id = _text(request, "sequence_id")
        if not model.keeps_sequences:
            yield {}
            return
        if not id:
            raise invalid(f"{model.name!r} keeps sequences; say which with sequence_id")
        key, sequences = (model.name, id), self.sequences
        if request.parameters["sequence_start"].bool_param:
            sequences.states[key], sequences.owners[key] = {}, stream
        if key not in sequences.states:
            raise invalid(f"no sequence {id!r}; its first request needs sequence_start")
        yield sequences.states[key]
        if request.parameters["sequence_end"].bool_param:
            self.end_sequence(key)

    def end_sequence(self, key: tuple[str, str]) -> None:
        del self.sequences.states[key], self.sequences.owners[key]

    def end_sequences_of(self, stream: object) -> None:
        for key in [key for key, owner in self.sequences.owners.items() if owner is stream]:
            del self.sequences.states[key], self.sequences.owners[key]

    # -- streams

    def ModelStreamInfer(self, requests: Any, context: Any) -> Responses:
        """Requests under way answer in turn, one response each."""
        stream, arrived = object(), arrivals(requests)
        running: deque[Responses] = deque()
        is_open = True
        try:
            while is_open or running:
                is_open = self.take(arrived, running, stream, is_open)
                if running and (response := next(running[0], None)) is None:
                    running.popleft()
                elif running:
                    self.check_status(response, context)
                    yield response
                    running.rotate(-1)
        finally:
            self.end_sequences_of(stream)

    def take(
        self, arrived: SimpleQueue, running: deque[Responses], stream: object, is_open: bool
    ) -> bool:
        """Begin what has arrived; waits where nothing runs. Whether more may come."""
        while is_open:
            try:
                request = arrived.get(block=not running)
            except Empty:
                return True
            if request is None:
                return False
            running.append(self.responses(request, stream))
        return False

    def responses(self, request: pb.ModelInferRequest, stream: object) -> Responses:
        """To one request on a stream."""
        try:
            model = self.find(request.model_name, request.model_version)
            yield from self.marked(model, request, self.answers(model, request, stream))
        except Refusal as refusal:
            yield self.in_band(request, refusal)

    def marked(
        self,
        model: ReferenceModel,
        request: pb.ModelInferRequest,
        answers: Iterable[pb.ModelInferResponse],
    ) -> Responses:
        """Each says whether it is the final one, which of a decoupled model may be empty."""
        is_apart = model.is_decoupled and request.parameters[ENABLE_EMPTY_FINAL].bool_param
        held = None
        for answer in answers:
            if held is not None:
                yield self.marked_one(held, False)
            held = answer
        if held is not None:
            yield self.marked_one(held, not is_apart)
        if is_apart:
            empty = pb.ModelInferResponse(model_name=model.name, id=request.id)
            yield self.marked_one(empty, True)

    def marked_one(
        self, answer: pb.ModelInferResponse, is_final: bool
    ) -> pb.ModelStreamInferResponse:
        answer.parameters[FINAL].bool_param = is_final
        return pb.ModelStreamInferResponse(infer_response=answer)

    def in_band(
        self, request: pb.ModelInferRequest, refusal: Refusal
    ) -> pb.ModelStreamInferResponse:
        response = pb.ModelStreamInferResponse(error_message=refusal.message)
        response.infer_response.id = request.id
        return response

    def check_status(self, response: pb.ModelStreamInferResponse, context: Any) -> None:
        """End the stream at an error where the caller requested a status."""
        wants = ("triton_grpc_error", "true") in context.invocation_metadata()
        if response.error_message and wants:
            context.abort(Code.INVALID_ARGUMENT, response.error_message)


def _text(request: pb.ModelInferRequest, name: str) -> str:
    """A parameter that may be a number or a text; empty where it is not sent."""
    if name not in request.parameters:
        return ""
    parameter = request.parameters[name]
    return str(getattr(parameter, parameter.WhichOneof("parameter_choice")))


def arrivals(requests: Iterable[pb.ModelInferRequest]) -> SimpleQueue:
    """The requests of a stream as they come, then None."""
    arrived: SimpleQueue = SimpleQueue()

    def read() -> None:
        with suppress(grpc.RpcError):  # a stream that is cancelled ends like any other
            for request in requests:
                arrived.put(request)
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    return arrived


@contextmanager
def serving(servicer: GRPCInferenceServiceServicer) -> Iterator[str]:
    """Host and port while it serves."""
    server = grpc.server(ThreadPoolExecutor(16))
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
