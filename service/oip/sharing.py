"""The inference protocol's service where several processes share a port: what concerns all of
them is carried out in each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from service.oip.adapters import base_name
from service.oip.servicer import InferenceServicer
from service.rpc.call import ServerCall
from unroll.inference import grpc_service_pb2 as pb

# A method's name, the model that it is about and its request, to the responses of all processes.
# Raises RequestError.
Everywhere = Callable[[str, str, bytes], Awaitable[list[bytes]]]

_REQUESTS: dict[str, type[Message]] = {
    "ModelStatistics": pb.ModelStatisticsRequest,
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest,
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest,
    "LogSettings": pb.LogSettingsRequest,
}


class SharedInferenceServicer(InferenceServicer):
    """everywhere: carries a method out in every process, this one too, by carry_out() there."""

    def __init__(self, everywhere: Everywhere, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._everywhere = everywhere

    async def carry_out(self, method: str, request: bytes) -> bytes:
        """In this process alone. Raises RequestError."""
        message = _REQUESTS[method].FromString(request)
        answer = getattr(InferenceServicer, method)(self, message, None)
        response: Message = await answer
        data: bytes = response.SerializeToString()
        return data

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: ServerCall
    ) -> pb.ModelStatisticsResponse:
        parts = await self._everywhere("ModelStatistics", request.name, request.SerializeToString())
        return summed(map(pb.ModelStatisticsResponse.FromString, parts))

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: ServerCall
    ) -> pb.RepositoryModelLoadResponse:
        await self._everywhere(
            "RepositoryModelLoad", base_name(request.model_name), request.SerializeToString()
        )
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: ServerCall
    ) -> pb.RepositoryModelUnloadResponse:
        await self._everywhere(
            "RepositoryModelUnload", base_name(request.model_name), request.SerializeToString()
        )
        return pb.RepositoryModelUnloadResponse()

    async def LogSettings(
        self, request: pb.LogSettingsRequest, context: ServerCall
    ) -> pb.LogSettingsResponse:
        parts = await self._everywhere("LogSettings", "", request.SerializeToString())
        response: pb.LogSettingsResponse = pb.LogSettingsResponse.FromString(parts[0])
        return response


def summed(parts: Iterable[pb.ModelStatisticsResponse]) -> pb.ModelStatisticsResponse:
    """Of each version: counts and times of all processes together."""
    found: dict[tuple[str, str], pb.ModelStatistics] = {}
    for part in parts:
        for one in part.model_stats:
            whole = found.setdefault((one.name, one.version), pb.ModelStatistics())
            _add(whole, one)
    return pb.ModelStatisticsResponse(model_stats=found.values())


def _add(whole: pb.ModelStatistics, one: pb.ModelStatistics) -> None:
    whole.name, whole.version = one.name, one.version
    whole.last_inference = max(whole.last_inference, one.last_inference)
    whole.inference_count += one.inference_count
    whole.execution_count += one.execution_count
    for phase in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        _add_duration(getattr(whole.inference_stats, phase), getattr(one.inference_stats, phase))
    batches = {batch.batch_size: batch for batch in whole.batch_stats}
    for batch in one.batch_stats:
        same = batches.get(batch.batch_size) or whole.batch_stats.add(batch_size=batch.batch_size)
        _add_duration(same.compute_infer, batch.compute_infer)


def _add_duration(whole: pb.StatisticDuration, one: pb.StatisticDuration) -> None:
    whole.SetInParent()
    whole.count += one.count
    whole.ns += one.ns
