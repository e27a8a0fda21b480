"""The gRPC server: this service, health and reflection on one port."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.engine.catalogue import Catalogue
from service.rpc.interceptors import CallInterceptor, CountRequest, Gate
from service.rpc.servicer import UnrollServicer
from unroll.v1 import unroll_pb2, unroll_pb2_grpc

SERVICE = unroll_pb2.DESCRIPTOR.services_by_name["UnrollService"].full_name

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class AddressInUse(Exception):
    """The server cannot listen on the address it was given."""


class GrpcServer:
    """Health: "" and the service's own name speak for all, each model's name for itself."""

    def __init__(
        self,
        catalogue: Catalogue,
        address: str,
        max_message_bytes: int,
        stall_seconds: float,
        count: CountRequest,
    ) -> None:
        self.catalogue = catalogue
        self.gate = Gate()
        names = {model.card.name for model in catalogue.models}
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(SERVICE, self.gate, count, names.__contains__)],
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                # Two servers on one port would split the calls between them in silence.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.aio.HealthServicer()
        unroll_pb2_grpc.add_UnrollServiceServicer_to_server(
            UnrollServicer(catalogue, stall_seconds), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressInUse(
                f"cannot listen on {address}: {error}; stop the other server or give --address"
            ) from error

    async def start(self) -> None:
        await self._server.start()
        await self._report(self._every_name(), SERVING)
        await self._report((bundle.name for bundle in self.catalogue.refused), NOT_SERVING)

    async def stop(self, grace_seconds: float) -> bool:
        """Not ready, no new calls, running ones finish within the grace.

        Returns whether they all did; those that did not are ended.
        """
        await self._report(self._every_name(), NOT_SERVING)
        self.gate.close()
        finished = await self.gate.wait_until_empty(grace_seconds)
        await self._server.stop(None if not finished else 0.2)
        return finished

    async def fail_model(self, name: str) -> None:
        """The model's engine stopped: it and the whole are no longer healthy."""
        await self._report(("", SERVICE, name), NOT_SERVING)

    def _every_name(self) -> list[str]:
        return ["", SERVICE, *(model.card.name for model in self.catalogue.models)]

    async def _report(self, names: Iterable[str], status: int) -> None:
        for name in names:
            await self._health.set(name, status)
