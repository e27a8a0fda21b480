"""The gRPC server: our own service, the Open Inference Protocol, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.access.admission import AdmissionControl
from service.grpc.bodies import Bodies
from service.grpc.health import NOT_SERVING, SERVING, HealthServicer
from service.grpc.interceptors import CallInterceptor
from service.grpc.servicer import UnrollServicer
from service.oip.infer import Adapters, InferHandler
from service.oip.servicer import InferenceServicer
from service.oip.streaming import METHOD as STREAM_INFER
from service.serving.control_types import Control
from service.serving.registry import ModelRegistry
from service.serving.sequences import Sequences
from service.serving.served_model import ServedModel
from unroll.inference import grpc_service_pb2, grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2, unroll_pb2_grpc

SERVICE = unroll_pb2.DESCRIPTOR.services_by_name["UnrollService"].full_name
INFERENCE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# For the last message of streams that are handed over to be read.
_HAND_OVER_SECONDS = 5.0
# A connection that is silent for so long is asked whether anybody is there, and closed if nobody
# answers in time.
_KEEPALIVE_SECONDS, _KEEPALIVE_TIMEOUT_SECONDS = 30.0, 20.0
# Callers may ask the same of us this often, with or without calls.
_LEAST_PING_SECONDS = 10.0
# Beyond that grpc's own end of a stop is not waited for.
_CLOSE_SECONDS = 5.0
# Calls that have come and are not taken up yet. Without a limit of its own grpc cancels bursts of
# more than a thousand, which no metric sees; with half as many, others are cancelled beside a flood
# of resets. Each takes up to 14 kB, 235 MB in all.
_MOST_PENDING_CALLS = 16_384
# Of the budget, what bodies that are on their way may take.
_BODIES_SHARE = 0.5


class AddressInUse(Exception):
    """The server cannot listen on the address it was given."""


@dataclass(frozen=True)
class GrpcSettings:
    """Of the same names as in the configuration."""

    address: str
    max_message_bytes: int
    max_metadata_bytes: int
    max_connections: int
    max_calls_per_connection: int
    handshake_seconds: float
    body_seconds: float
    idle_connection_seconds: float
    stall_seconds: float


class GrpcServer:
    """Health: "" and the services' names speak for all, each model's name for itself.

    control: loads and unloads models. admission: what every request passes, of any front end.
    sequences: states between requests. adapters: of a model, for the inference protocol.
    is_ready: whether all that is served answers. credentials: None for no TLS.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        control: Control,
        settings: GrpcSettings,
        admission: AdmissionControl,
        sequences: Sequences,
        adapters: Callable[[ServedModel], Adapters],
        is_ready: Callable[[], bool],
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.registry = registry
        self.is_leaving = False
        self._inflight = admission.inflight
        budget = admission.budget
        most_bodies = max(1, int(_BODIES_SHARE * budget.limit) // settings.max_message_bytes)
        interceptor = CallInterceptor(
            (SERVICE, INFERENCE),
            admission,
            Bodies(most_bodies, settings.body_seconds),
            settings.stall_seconds,
            (STREAM_INFER,),
        )
        self._server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
        self._health = HealthServicer()
        unroll_pb2_grpc.add_UnrollServiceServicer_to_server(
            UnrollServicer(registry, self._inflight, budget, settings.stall_seconds), self._server
        )
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(
                InferHandler(registry, sequences, budget, adapters),
                control,
                is_ready,
                admission,
                settings.stall_seconds,
            ),
            self._server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [SERVICE, INFERENCE, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        try:
            self.port: int = (
                self._server.add_secure_port(settings.address, credentials)
                if credentials
                else self._server.add_insecure_port(settings.address)
            )
        except RuntimeError as error:
            raise AddressInUse(
                f"cannot listen on {settings.address}: {error}; stop the other server or give "
                "--address"
            ) from error

    async def start(self) -> None:
        await self._server.start()
        self._health.set(self._every_name(), SERVING)
        self._health.set((bundle.name for bundle in self.registry.refused), NOT_SERVING)

    def announce(self) -> None:
        """Say to whoever watches that this server is about to stop; it still takes calls."""
        self.is_leaving = True
        self._health.set(self._every_name(), NOT_SERVING)

    async def stop(self, grace_seconds: float, hand_over: Callable[[], None]) -> bool:
        """No new calls; running ones finish within the grace, or are handed over.

        hand_over: has every stream that still runs end with what others go on from.
        Returns whether all ended so; those that did not are ended.
        """
        self._inflight.close()
        finished = await self._inflight.wait_until_empty(grace_seconds)
        if not finished:
            self._inflight.handing_over.set()
            hand_over()
            finished = await self._inflight.wait_until_empty(_HAND_OVER_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._server.stop(None if not finished else 0.2)
        return finished

    def report_health(self, name: str, is_served: bool, all_healthy: bool) -> None:
        """name: of a model that was loaded or unloaded, or whose engine broke.

        all_healthy: whether no model that is served has broken.
        """
        if self.is_leaving:
            return
        self._health.set((name,), SERVING if is_served else NOT_SERVING)
        self._health.set(("", SERVICE, INFERENCE), SERVING if all_healthy else NOT_SERVING)

    def _every_name(self) -> list[str]:
        return ["", SERVICE, INFERENCE, *(model.card.name for model in self.registry.models)]


def _options(settings: GrpcSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # The limit and where grpc begins to refuse by chance are one, so that none is by chance.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        # It refuses calls of callers that keep to that limit, by the hundred: those that ended a
        # moment ago still count.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server.max_pending_requests", _MOST_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING_CALLS),
        # A call that nobody reads yet may send 64 KiB, not the 4 MiB that grpc grants by probing.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.server_handshake_timeout_ms", round(settings.handshake_seconds * 1000)),
        # Of its own for SETTINGS, which every caller must acknowledge: a minute otherwise.
        ("grpc.http2.settings_timeout", round(settings.handshake_seconds * 1000)),
        ("grpc.max_connection_idle_ms", round(settings.idle_connection_seconds * 1000)),
        ("grpc.keepalive_time_ms", round(_KEEPALIVE_SECONDS * 1000)),
        # grpc.keepalive_timeout_ms closes no connection: it would take a minute.
        ("grpc.http2.ping_timeout_ms", round(_KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(_LEAST_PING_SECONDS * 1000)),
        # Two servers on one port would split the calls between them in silence.
        ("grpc.so_reuseport", 0),
    ]
