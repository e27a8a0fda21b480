"""How the reference server describes itself and its models."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.conformance.reference_models import MODELS, ReferenceModel
from tests.conformance.reference_reading import Code, Refusal
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference import model_config_pb2
from unroll.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer

VERSION = "1"


@contextmanager
def refusing(context: Any) -> Iterator[None]:
    """A refusal becomes the status of the call."""
    try:
        yield
    except Refusal as refusal:
        context.abort(refusal.code, refusal.message)


class Describing(GRPCInferenceServiceServicer):
    """Health, metadata, configuration, index and statistics. lock: of the statistics."""

    def __init__(self) -> None:
        self.models = {model.name: model for model in MODELS}
        self.statistics: dict[str, pb.ModelStatistics] = defaultdict(pb.ModelStatistics)
        self.lock = threading.Lock()

    def find(self, name: str, version: str) -> ReferenceModel:
        if name not in self.models:
            raise Refusal(Code.NOT_FOUND, f"no model {name!r}; there are {list(self.models)}")
        if version not in ("", VERSION):
            raise Refusal(Code.NOT_FOUND, f"{name!r} has no version {version!r}, only {VERSION}")
        return self.models[name]

    def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:
        is_known = request.name in self.models and request.version in ("", VERSION)
        return pb.ModelReadyResponse(ready=is_known)

    def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:
        extensions = [
            *("sequence", "model_repository", "model_configuration", "statistics"),
            *("parameters", "schedule_policy", "binary_tensor_data"),
        ]
        return pb.ServerMetadataResponse(name="reference", version="1", extensions=extensions)

    def ModelMetadata(self, request: Any, context: Any) -> pb.ModelMetadataResponse:
        with refusing(context):
            model = self.find(request.name, request.version)
        answer = pb.ModelMetadataResponse(name=model.name, versions=[VERSION], platform="numpy")
        for tensors, described in ((model.inputs, answer.inputs), (model.outputs, answer.outputs)):
            for tensor in tensors:
                described.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return answer

    def ModelConfig(self, request: Any, context: Any) -> pb.ModelConfigResponse:
        with refusing(context):
            model = self.find(request.name, request.version)
        config = model_config_pb2.ModelConfig(
            name=model.name, platform="numpy", max_batch_size=model.max_batch_size
        )
        for tensors, described in ((model.inputs, config.input), (model.outputs, config.output)):
            for tensor in tensors:
                kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
                dims = tensor.shape[1:] if model.max_batch_size else tensor.shape
                described.add(
                    name=tensor.name,
                    data_type=model_config_pb2.DataType.Value(f"TYPE_{kind}"),
                    dims=dims,
                )
        config.model_transaction_policy.decoupled = model.is_decoupled
        if model.keeps_sequences:
            config.sequence_batching.max_sequence_idle_microseconds = 10**9
        return pb.ModelConfigResponse(config=config)

    def RepositoryIndex(self, request: Any, context: Any) -> pb.RepositoryIndexResponse:
        answer = pb.RepositoryIndexResponse()
        for name in self.models:
            answer.models.add(name=name, version=VERSION, state="READY")
        if not request.ready:
            answer.models.add(name="resting", version=VERSION, state="UNAVAILABLE", reason="idle")
        return answer

    def ModelStatistics(self, request: Any, context: Any) -> pb.ModelStatisticsResponse:
        with refusing(context):
            found = [self.find(request.name, request.version)] if request.name else MODELS
        with self.lock:
            for model in found:
                self.statistics[model.name].MergeFrom(
                    pb.ModelStatistics(name=model.name, version=VERSION)
                )
            statistics = [self.statistics[model.name] for model in found]
            return pb.ModelStatisticsResponse(model_stats=statistics)
