"""Servers that are wrong all over: between them and broken.py, every case fails somewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.conformance.reference import FINAL, ReferenceServer
from tests.conformance.reference_models import Arrays, ReferenceModel, State
from tests.conformance.reference_reading import Code, Reader, Refusal, invalid
from unroll.inference import grpc_service_pb2 as pb


class SaysTheContrary(ReferenceServer):
    """Of health; and of itself, nothing and everything twice."""

    def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=False)

    def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=False)

    def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=not super().ModelReady(request, context).ready)

    def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(extensions=["statistics", "statistics"])

    def ModelStatistics(self, request: Any, context: Any) -> pb.ModelStatisticsResponse:
        context.abort(Code.UNIMPLEMENTED, "no statistics")


class Misdescribes(ReferenceServer):
    """In metadata: a version too many, and outputs that are none of its own."""

    def ModelMetadata(self, request: Any, context: Any) -> pb.ModelMetadataResponse:
        answer = super().ModelMetadata(request, context)
        answer.name, answer.platform, answer.versions[:] = "", "", ["1", "2"]
        for output in answer.outputs:
            output.name, output.datatype, output.shape[:] = "result", "STRING", [0, -2, 7]
        return answer

    def ModelConfig(self, request: Any, context: Any) -> pb.ModelConfigResponse:
        answer = super().ModelConfig(request, context)
        answer.config.name = ""
        return answer


class Mislabels(ReferenceServer):
    """Answers that are not what they claim, and statistics of nobody."""

    def answer(
        self, model: ReferenceModel, request: pb.ModelInferRequest, outputs: Arrays
    ) -> pb.ModelInferResponse:
        answer = super().answer(model, request, outputs)
        answer.model_name = answer.model_version = answer.id = ""
        answer.raw_output_contents[:] = [raw + b"\0" for raw in answer.raw_output_contents]
        for output in answer.outputs:
            if output.contents.int64_contents:
                output.contents.fp64_contents[:] = output.contents.int64_contents
                output.contents.ClearField("int64_contents")
        return answer

    def RepositoryIndex(self, request: Any, context: Any) -> pb.RepositoryIndexResponse:
        answer = super().RepositoryIndex(pb.RepositoryIndexRequest(), context)
        answer.models.add(name="resting", version="1", state="ASLEEP")
        return answer

    def ModelStatistics(self, request: Any, context: Any) -> pb.ModelStatisticsResponse:
        return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics()])


class _TakesAnything(Reader):
    def read(self, model: ReferenceModel, request: pb.ModelInferRequest) -> Arrays:
        try:
            return super().read(model, request)
        except Refusal:
            shape = [1 if size < 0 else size for size in model.inputs[0].shape]
            return {tensor.name: np.zeros(shape, np.int64) for tensor in model.inputs}


class TakesAnything(ReferenceServer):
    reader = _TakesAnything()

    @contextmanager
    def state_of(
        self, model: ReferenceModel, request: pb.ModelInferRequest, stream: object
    ) -> Iterator[State]:
        yield {}


class Wavers(ReferenceServer):
    """Adds the number of the answer to each of its outputs that holds numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()

    def answer(
        self, model: ReferenceModel, request: pb.ModelInferRequest, outputs: Arrays
    ) -> pb.ModelInferResponse:
        number = next(self.numbers)
        changed = {n: a + number if a.dtype.kind in "iuf" else a for n, a in outputs.items()}
        return super().answer(model, request, changed)


class RefusesAll(ReferenceServer):
    """And begins a stream with a word of its own."""

    def answers(
        self, model: ReferenceModel, request: pb.ModelInferRequest, stream: object
    ) -> Iterator[pb.ModelInferResponse]:
        raise invalid("not today")

    def ModelStreamInfer(
        self, requests: Any, context: Any
    ) -> Iterator[pb.ModelStreamInferResponse]:
        yield pb.ModelStreamInferResponse()
        yield from super().ModelStreamInfer(requests, context)


class MarksInWords(ReferenceServer):
    """Says in words which response is final, after an empty one that is not."""

    def marked_one(
        self, answer: pb.ModelInferResponse, is_final: bool
    ) -> pb.ModelStreamInferResponse:
        response = super().marked_one(answer, is_final)
        response.infer_response.parameters[FINAL].string_param = str(is_final)
        return response

    def marked(
        self, model: ReferenceModel, request: pb.ModelInferRequest, answers: Any
    ) -> Iterator[pb.ModelStreamInferResponse]:
        empty = pb.ModelInferResponse(model_name=model.name, id=request.id)
        yield self.marked_one(empty, False)
        yield from super().marked(model, request, answers)


CARELESS = (
    SaysTheContrary,
    Misdescribes,
    Mislabels,
    TakesAnything,
    Wavers,
    MarksInWords,
    RefusesAll,
)
