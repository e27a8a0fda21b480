"""Models that a mutated message unloaded are loaded again: the rest of a run is to find them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import grpc

from tests import tiny
from tests.fuzz.faults import CANCELLED_BY_US, Answer
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference import grpc_service_pb2_grpc

# Of numbers that are stepped over; beside the tiny models.
STEPPER = "gained"
NAMES = (*tiny.NAMES, STEPPER)
# As a service begins: a mutated load may have chosen other versions.
_NEWEST = pb.ModelRepositoryParameter(string_param='{"version_policy": {"latest": {}}}')


async def load_again(channel: grpc.aio.Channel, call: Any, answer: Answer) -> None:
    """After each call: what one that unloads may have unloaded."""
    has_unloaded = answer.status in ("OK", CANCELLED_BY_US)
    if call.method.name == "RepositoryModelUnload" and has_unloaded:
        # At the end of a round all are loaded, or it says why not.
        with suppress(grpc.aio.AioRpcError):
            await _load_all(channel)


async def load_all(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await _load_all(channel)


async def _load_all(channel: grpc.aio.Channel) -> None:
    stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
    for name in NAMES:
        request = pb.RepositoryModelLoadRequest(model_name=name, parameters={"config": _NEWEST})
        await stub.RepositoryModelLoad(request, timeout=60)
