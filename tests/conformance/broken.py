"""Servers that are each wrong in one way, and the case that is meant to find it out."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.endpoint import Tensor
from conformance.tensors import BYTES, item_size, to_array, to_contents
from tests.conformance.reference import Code, ReferenceServer
from tests.conformance.reference_models import Arrays, ReferenceModel, State
from tests.conformance.reference_reading import InputTensor, Reader, Refusal
from unroll.inference import grpc_service_pb2 as pb

# What AllocatesByClaim is tested with: it answers too late for this.
SHORT_TIMEOUT = 1.5


class ForgetsStreamIds(ReferenceServer):
    def marked_one(
        self, answer: pb.ModelInferResponse, is_final: bool
    ) -> pb.ModelStreamInferResponse:
        answer.id = ""
        return super().marked_one(answer, is_final)


class IgnoresRequestedOutputs(ReferenceServer):
    def outputs_requested(self, model: ReferenceModel, request: pb.ModelInferRequest) -> list[str]:
        return [tensor.name for tensor in model.outputs]


class SortsOutputs(ReferenceServer):
    def outputs_requested(self, model: ReferenceModel, request: pb.ModelInferRequest) -> list[str]:
        return sorted(super().outputs_requested(model, request))


class _PrefersRaw(Reader):
    def check_contents(self, request: pb.ModelInferRequest) -> None:
        if request.raw_input_contents:
            for tensor in request.inputs:
                tensor.ClearField("contents")
        super().check_contents(request)


class TakesRawAndTyped(ReferenceServer):
    reader = _PrefersRaw()


class _ReadsPastBytes(Reader):
    def from_raw(self, sent: InputTensor, raw: bytes) -> NDArray[Any]:
        if sent.datatype != BYTES:
            return super().from_raw(sent, raw)
        words: list[bytes] = []
        while len(words) < math.prod(sent.shape):
            (length,) = struct.unpack("<I", raw[:4].ljust(4, b"\0"))
            words.append(raw[4 : 4 + length])
            raw = raw[4 + length :]
        return to_array(BYTES, words).reshape(tuple(sent.shape))


class ReadsPastBytes(ReferenceServer):
    reader = _ReadsPastBytes()


class _WrapsSizes(Reader):
    def from_raw(self, sent: InputTensor, raw: bytes) -> NDArray[Any]:
        claimed = math.prod(sent.shape) * item_size(sent.datatype)
        if claimed != len(raw) and claimed % 2**64 == len(raw):
            return np.zeros([1] * len(sent.shape), np.int64)
        return super().from_raw(sent, raw)


class WrapsSizes(ReferenceServer):
    reader = _WrapsSizes()


class _AllocatesByClaim(Reader):
    def check_shape(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        super().check_shape(tensor, shape)
        if math.prod(shape) > 2**40:
            # As long as writing so much memory would take, for a caller with a short deadline.
            time.sleep(2 * SHORT_TIMEOUT)


class AllocatesByClaim(ReferenceServer):
    reader = _AllocatesByClaim()


class _InfersDimensions(Reader):
    def read_tensor(self, tensor: Tensor, sent: InputTensor, raw: bytes | None) -> NDArray[Any]:
        sent.shape[:] = [max(size, 1) for size in sent.shape]
        return super().read_tensor(tensor, sent, raw)


class InfersDimensions(ReferenceServer):
    reader = _InfersDimensions()


class NeverFinal(ReferenceServer):
    def marked_one(
        self, answer: pb.ModelInferResponse, is_final: bool
    ) -> pb.ModelStreamInferResponse:
        return super().marked_one(answer, False)


class SendsUnaskedFinal(ReferenceServer):
    def marked(
        self, model: ReferenceModel, request: pb.ModelInferRequest, answers: Any
    ) -> Iterator[pb.ModelStreamInferResponse]:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        return super().marked(model, request, answers)


class BigEndianLengths(ReferenceServer):
    def to_raw(self, datatype: str, array: NDArray[Any]) -> bytes:
        if datatype != BYTES:
            return super().to_raw(datatype, array)
        return b"".join(struct.pack(">I", len(word)) + word for word in array.flat)


class MixesRawAndTyped(ReferenceServer):
    def answer(
        self, model: ReferenceModel, request: pb.ModelInferRequest, outputs: Arrays
    ) -> pb.ModelInferResponse:
        answer = super().answer(model, request, outputs)
        if len(answer.raw_output_contents) > 1:
            last = answer.outputs[-1]
            del answer.raw_output_contents[-1]
            last.contents.ParseFromString(
                to_contents(last.datatype, outputs[last.name]).SerializeToString()
            )
        return answer


class ErrorEndsStream(ReferenceServer):
    def check_status(self, response: pb.ModelStreamInferResponse, context: Any) -> None:
        if response.error_message:
            context.abort(Code.INVALID_ARGUMENT, response.error_message)


class ErrorWithoutId(ReferenceServer):
    def in_band(
        self, request: pb.ModelInferRequest, refusal: Refusal
    ) -> pb.ModelStreamInferResponse:
        return pb.ModelStreamInferResponse(error_message=refusal.message)


class IgnoresStatusHeader(ReferenceServer):
    def check_status(self, response: pb.ModelStreamInferResponse, context: Any) -> None:
        pass


class KeepsEndedSequences(ReferenceServer):
    def end_sequence(self, key: tuple[str, str]) -> None:
        pass


class SequencesOutliveStreams(ReferenceServer):
    def end_sequences_of(self, stream: object) -> None:
        pass


class SharesOneState(ReferenceServer):
    """Of all sequences of a model, the one that started last is gone on with."""

    @contextmanager
    def state_of(
        self, model: ReferenceModel, request: pb.ModelInferRequest, stream: object
    ) -> Iterator[State]:
        with super().state_of(model, request, stream) as state:
            if request.parameters["sequence_start"].bool_param:
                self.last = state
            yield self.last if model.keeps_sequences and state else state


class StatisticsStandStill(ReferenceServer):
    def count(self, model: ReferenceModel, rows: int, nanoseconds: int) -> None:
        pass


class MixesUpCallers(ReferenceServer):
    """The id of the request that came last, where several are under way."""

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        self.last_id = request.id
        time.sleep(0.01)
        answer = super().ModelInfer(request, context)
        answer.id = self.last_id
        return answer


class MixesRows(ReferenceServer):
    def answer(
        self, model: ReferenceModel, request: pb.ModelInferRequest, outputs: Arrays
    ) -> pb.ModelInferResponse:
        turned = {n: a[::-1] if model.max_batch_size else a for n, a in outputs.items()}
        return super().answer(model, request, turned)


class UnknownModelIsUnknownError(ReferenceServer):
    def find(self, name: str, version: str) -> ReferenceModel:
        try:
            return super().find(name, version)
        except Refusal as refusal:
            raise Refusal(Code.UNKNOWN, refusal.message) from None


@dataclass(frozen=True)
class Fault:
    """meant: the case that finds it. follows: others that cannot but fail with it."""

    server: type[ReferenceServer]
    meant: str
    follows: tuple[str, ...] = ()
    models: tuple[str, ...] = ("sums",)
    timeout: float = 10.0


FAULTS = (
    Fault(
        ForgetsStreamIds,
        "stream-infer-002",
        # These match responses on one stream by their ids.
        ("stream-infer-007", "stream-infer-009", "stream-error-003", "stream-final-007"),
        models=("repeat",),
    ),
    Fault(
        IgnoresRequestedOutputs,
        "core-infer-009",
        ("core-infer-010", "core-refuse-008", "core-refuse-029", "stream-infer-005"),
    ),
    Fault(SortsOutputs, "core-infer-010"),
    Fault(TakesRawAndTyped, "core-refuse-014", ("core-refuse-015",)),
    Fault(
        ReadsPastBytes,
        "core-refuse-021",
        ("core-refuse-020", "core-refuse-022"),
        models=("kinds",),
    ),
    Fault(WrapsSizes, "core-refuse-028"),
    Fault(
        AllocatesByClaim,
        "core-refuse-026",
        ("core-refuse-027", "core-refuse-028"),
        timeout=SHORT_TIMEOUT,
    ),
    Fault(InfersDimensions, "core-refuse-013"),
    Fault(
        NeverFinal,
        "stream-final-001",
        ("stream-final-005", "stream-final-007"),
        models=("sums", "repeat"),
    ),
    Fault(SendsUnaskedFinal, "stream-final-002", models=("repeat",)),
    Fault(BigEndianLengths, "core-infer-013", models=("kinds",)),
    Fault(MixesRawAndTyped, "core-infer-011"),
    Fault(
        ErrorEndsStream,
        "stream-error-001",
        ("stream-error-002", "stream-error-003", "stream-error-004", "seq-refuse-003"),
        models=("repeat", "accumulate"),
    ),
    Fault(ErrorWithoutId, "stream-error-002", models=("repeat",)),
    Fault(IgnoresStatusHeader, "stream-error-005", models=("repeat",)),
    Fault(KeepsEndedSequences, "seq-refuse-002", ("seq-infer-006",), models=("accumulate",)),
    Fault(SequencesOutliveStreams, "seq-life-001", models=("accumulate",)),
    Fault(SharesOneState, "seq-infer-003", models=("accumulate",)),
    Fault(
        StatisticsStandStill,
        "ext-stats-002",
        ("ext-stats-003", "ext-stats-004", "ext-stats-005"),
    ),
    Fault(MixesUpCallers, "core-infer-019"),
    Fault(MixesRows, "core-infer-018"),
    Fault(
        UnknownModelIsUnknownError,
        "core-refuse-001",
        (
            *("core-refuse-002", "core-refuse-003", "core-meta-009", "core-meta-010"),
            *("ext-config-005", "ext-stats-007"),
        ),
    ),
)
