"""All services of the port, whichever front end carries them: their methods, health, the drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from service.access.admission import AdmissionControl
from service.oip.infer import Adapters, InferHandler
from service.oip.servicer import InferenceServicer
from service.oip.sharing import Everywhere, SharedInferenceServicer
from service.oip.streaming import METHOD as STREAM_INFER
from service.rpc.call import ServerCall
from service.rpc.health import NOT_SERVING, SERVING, HealthServicer
from service.rpc.methods import Method, methods_of
from service.rpc.pipeline import Pipeline
from service.serving.control_types import Control
from service.serving.named_states import NamedStates
from service.serving.presets import Presets
from service.serving.registry import ModelRegistry
from service.serving.sequences import Sequences
from service.serving.served_model import ServedModel
from service.v1.servicer import UnrollServicer
from unroll.inference import grpc_service_pb2
from unroll.v1 import unroll_pb2

_UNROLL = unroll_pb2.DESCRIPTOR.services_by_name["UnrollService"]
_INFERENCE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
SERVICE: str = _UNROLL.full_name
INFERENCE: str = _INFERENCE.full_name
# ModelStreamInfer with one request: not a path that anybody can call, but a key for protocols over
# HTTP. As gRPC has it the method gets requests as bytes, admits each itself and matches answers
# to them; of one request the pipeline reads and admits, and its answers need no mark.
INFER_STREAM_OF_ONE = f"{INFERENCE}: {STREAM_INFER} of one request"
# Its messages are those of v1alpha, field by field; newer clients ask for it first.
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

# For the last message of streams that are handed over to be read.
_HAND_OVER_SECONDS = 5.0


class _ReflectionServicer:
    """grpc's own, which yields its responses; imported for who asks, with the rest of grpc."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], call: ServerCall) -> None:
        from grpc_reflection.v1alpha.reflection import aio

        async for response in aio.ReflectionServicer(self._names).ServerReflectionInfo(
            requests, None
        ):
            await call.write(response)


class Services:
    """Health: "" and the services' names speak for all, each model's name for itself.

    control: loads and unloads models. admission: what every request passes. sequences: states
    between requests. adapters: of a model, for the inference protocol. is_ready: whether all that
    is served answers. stall_seconds: how long one message may wait for its caller to read.
    states: that callers keep by name. presets: of sampling parameters.
    everywhere: of the processes that share the port; None for this one alone.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        control: Control,
        admission: AdmissionControl,
        sequences: Sequences,
        adapters: Callable[[ServedModel], Adapters],
        is_ready: Callable[[], bool],
        stall_seconds: float,
        states: NamedStates,
        presets: Presets,
        everywhere: Everywhere | None = None,
    ) -> None:
        self.registry = registry
        self.is_leaving = False
        self.pipeline = Pipeline(admission)
        self._inflight = admission.inflight
        budget = admission.budget
        self.health = HealthServicer()
        unroll = UnrollServicer(registry, self._inflight, budget, stall_seconds, states, presets)
        self.infer_handler = InferHandler(registry, sequences, budget, adapters, states)
        of_inference = (self.infer_handler, control, is_ready, admission, stall_seconds)
        inference = (
            SharedInferenceServicer(everywhere, *of_inference)
            if everywhere
            else InferenceServicer(*of_inference)
        )
        self.inference = inference
        every = _methods(unroll, inference, self.health)
        # By path.
        self.methods: dict[str, Method] = {method.path: method for method in every}
        # Those that can be called with one request over HTTP: by path, and what is there alone.
        self.http_methods = self.methods | {INFER_STREAM_OF_ONE: _infer_stream_of_one(inference)}

    def open(self) -> None:
        """From now on calls are taken."""
        self.health.set(self._every_name(), SERVING)
        self.health.set((bundle.name for bundle in self.registry.refused), NOT_SERVING)

    def announce(self) -> None:
        """Say to whoever watches that this server is about to stop; it still takes calls."""
        self.is_leaving = True
        self.health.set(self._every_name(), NOT_SERVING)

    async def drain(self, grace_seconds: float, hand_over: Callable[[], None]) -> bool:
        """No new calls; running ones finish within the grace, or are handed over.

        hand_over: has every stream that still runs end with what others go on from.
        Returns whether all ended so.
        """
        self._inflight.close()
        if await self._inflight.wait_until_empty(grace_seconds):
            return True
        self._inflight.handing_over.set()
        hand_over()
        return await self._inflight.wait_until_empty(_HAND_OVER_SECONDS)

    def report_health(self, name: str, is_served: bool, all_healthy: bool) -> None:
        """name: of a model that was loaded or unloaded, or whose engine broke.

        all_healthy: whether no model that is served has broken.
        """
        if self.is_leaving:
            return
        self.health.set((name,), SERVING if is_served else NOT_SERVING)
        self.health.set(("", SERVICE, INFERENCE), SERVING if all_healthy else NOT_SERVING)

    def _every_name(self) -> list[str]:
        return ["", SERVICE, INFERENCE, *(model.card.name for model in self.registry.models)]


def _infer_stream_of_one(inference: InferenceServicer) -> Method:
    """Named as the method that it is like, for roles, limits and what is counted."""
    return Method(
        INFERENCE,
        STREAM_INFER,
        grpc_service_pb2.ModelInferRequest,
        grpc_service_pb2.ModelInferResponse,
        inference.stream_one,
        writes_several=True,
    )


def _methods(
    unroll: UnrollServicer, inference: InferenceServicer, health: HealthServicer
) -> Iterator[Method]:
    yield from methods_of(_UNROLL, unroll)
    yield from methods_of(_INFERENCE, inference, multiplexed=(STREAM_INFER,))
    yield from methods_of(_HEALTH, health, is_admitted=False)
    names = [SERVICE, INFERENCE, _HEALTH.full_name, _REFLECTION.full_name]
    reflecting = _ReflectionServicer(names)
    for name in (_REFLECTION.full_name, _REFLECTION_V1):
        yield from methods_of(_REFLECTION, reflecting, is_admitted=False, name=name)
