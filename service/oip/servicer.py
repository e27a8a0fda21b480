"""inference.GRPCInferenceService: the Open Inference Protocol, and Triton's extensions of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, NoReturn

import service
from service.access.admission import AdmissionControl
from service.engine.errors import NotOffered, RequestError, WrongInput
from service.oip import metadata
from service.oip.adapters import TENSORS, base_name
from service.oip.infer import InferHandler
from service.oip.logs import change_log_settings, log_settings
from service.oip.streaming import InferStream, stream_one
from service.oip.version_policy import read_policy
from service.rpc.call import ServerCall
from service.serving.control_types import Control, VersionPolicy
from service.serving.registry import ModelRegistry
from unroll.inference import grpc_service_pb2 as pb

SERVER_NAME = "unroll"
# Triton's names of what is offered beyond the protocol's core.
EXTENSIONS = (
    "classification", "sequence", "model_repository", "model_repository(unload_dependents)",
    "schedule_policy", "model_configuration", "binary_tensor_data", "parameters", "statistics",
    "logging",
)  # fmt: skip


class InferenceServicer:
    """Raises domain errors; the pipeline around it turns them into statuses.

    control: loads and unloads models. is_ready: whether all that is served answers.
    admission: of the requests within a stream; those of other calls pass the pipeline's.
    stall_seconds: how long a response may wait for its caller to read.
    """

    def __init__(
        self,
        handler: InferHandler,
        control: Control,
        is_ready: Callable[[], bool],
        admission: AdmissionControl,
        stall_seconds: float,
    ) -> None:
        self.handler = handler
        self.control = control
        self.is_ready = is_ready
        self.admission = admission
        self.stall_seconds = stall_seconds

    @property
    def registry(self) -> ModelRegistry:
        return self.handler.registry

    # -- health and metadata -------------------------------------------------------------------

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: ServerCall
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: ServerCall
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.is_ready())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: ServerCall
    ) -> pb.ModelReadyResponse:
        try:
            served, _ = self.handler.find(request.name, request.version)
        except RequestError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not served.has_failed)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: ServerCall
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=service.__version__, extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: ServerCall
    ) -> pb.ModelMetadataResponse:
        served, adapter = self.handler.find(request.name, request.version)
        return metadata.metadata(request.name, self.registry.versions(served.name), adapter)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: ServerCall
    ) -> pb.ModelConfigResponse:
        served, adapter = self.handler.find(request.name, request.version)
        sequences, versions = self.handler.sequences, self.registry.versions(served.name)
        return pb.ModelConfigResponse(
            config=metadata.configuration(
                request.name, versions, adapter, sequences.most, sequences.idle_seconds
            )
        )

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: ServerCall
    ) -> pb.ModelStatisticsResponse:
        """Of every version that is served of a name, and of every name."""
        if not request.name:
            every = self.registry.served
            seen = [
                (served.name + adapter, served) for served in every for adapter in ("", TENSORS)
            ]
        else:
            found, _ = self.handler.find(request.name, request.version)
            every = self.registry.served if not request.version else [found]
            seen = [(request.name, served) for served in every if served.name == found.name]
        return pb.ModelStatisticsResponse(
            model_stats=[metadata.statistics(name, served) for name, served in seen]
        )

    # -- inference -----------------------------------------------------------------------------

    def ModelInfer(
        self, request: pb.ModelInferRequest, context: ServerCall
    ) -> Coroutine[Any, Any, pb.ModelInferResponse]:
        return self.handler.answer(request)

    async def ModelStreamInfer(self, requests: AsyncIterator[bytes], context: ServerCall) -> None:
        stream = InferStream(self.handler, context, self.admission, self.stall_seconds)
        await stream.serve(requests)

    async def stream_one(self, request: pb.ModelInferRequest, context: ServerCall) -> None:
        """What ModelStreamInfer says to one request, as messages of ModelInferResponse."""
        await stream_one(self.handler, request, context, self.admission, self.stall_seconds)

    # -- control -------------------------------------------------------------------------------

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: ServerCall
    ) -> pb.RepositoryIndexResponse:
        _check_repository(request.repository_name)
        return metadata.index(self.control.index(), request.ready)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: ServerCall
    ) -> pb.RepositoryModelLoadResponse:
        _check_repository(request.repository_name)
        policy = _load_policy(request.parameters)
        await self.control.load(base_name(request.model_name), policy)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: ServerCall
    ) -> pb.RepositoryModelUnloadResponse:
        _check_repository(request.repository_name)
        for name in request.parameters:
            if name != "unload_dependents":  # there are none
                raise WrongInput(f"parameter {name!r} is unknown; leave it out")
        await self.control.unload(base_name(request.model_name))
        return pb.RepositoryModelUnloadResponse()

    async def LogSettings(
        self, request: pb.LogSettingsRequest, context: ServerCall
    ) -> pb.LogSettingsResponse:
        change_log_settings(request.settings)
        response = pb.LogSettingsResponse()
        for name, value in log_settings().items():
            if isinstance(value, bool):
                response.settings[name].bool_param = value
            else:
                response.settings[name].uint32_param = value
        return response

    # -- not offered ---------------------------------------------------------------------------

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: ServerCall) -> NoReturn:
        raise NotOffered(
            "traces are set up when the server starts, and a request is traced where its "
            "traceparent says so; ModelStatistics and /metrics have queue and compute times"
        )

    async def SystemSharedMemoryStatus(self, request: Any, context: ServerCall) -> NoReturn:
        raise _no_shared_memory()

    async def SystemSharedMemoryRegister(self, request: Any, context: ServerCall) -> NoReturn:
        raise _no_shared_memory()

    async def SystemSharedMemoryUnregister(self, request: Any, context: ServerCall) -> NoReturn:
        raise _no_shared_memory()

    async def CudaSharedMemoryStatus(self, request: Any, context: ServerCall) -> NoReturn:
        raise _no_shared_memory()

    async def CudaSharedMemoryRegister(self, request: Any, context: ServerCall) -> NoReturn:
        raise _no_shared_memory()

    async def CudaSharedMemoryUnregister(self, request: Any, context: ServerCall) -> NoReturn:
        raise _no_shared_memory()


def _no_shared_memory() -> NotOffered:
    return NotOffered(
        "this server uses no shared memory; send tensors in raw_input_contents and read them from "
        "raw_output_contents"
    )


def _check_repository(name: str) -> None:
    if name:
        raise WrongInput(f"there is one repository, without a name; leave {name!r} out")


def _load_policy(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> VersionPolicy | None:
    """What a load says of versions; None for nothing. Raises WrongInput."""
    for name in parameters:
        if name.startswith("file:"):
            raise WrongInput(
                f"parameter {name[:80]!r} brings a file; copy the bundle into the models folder "
                "instead, then load it"
            )
        if name != "config":
            raise WrongInput(f"parameter {name[:80]!r} is unknown; send 'config' or nothing")
    if "config" not in parameters:
        return None
    try:
        config = json.loads(parameters["config"].string_param)
    except (ValueError, RecursionError) as error:
        raise WrongInput(f"parameter 'config' is not JSON ({error})") from error
    return read_policy(config)
