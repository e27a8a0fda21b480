"""grpcio's own server."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc

from service.front_end import AddressInUse, FrontEndSettings
from service.grpc.bodies import Bodies
from service.grpc.handlers import MethodHandlers
from service.services import Services

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


class GrpcServer:
    """credentials: None for no TLS. shares_port: with other processes of the same service.

    Raises AddressInUse.
    """

    def __init__(
        self,
        services: Services,
        settings: FrontEndSettings,
        credentials: grpc.ServerCredentials | None = None,
        shares_port: bool = False,
    ) -> None:
        pipeline = services.pipeline
        budget = pipeline.admission.budget
        most_bodies = max(1, int(_BODIES_SHARE * budget.limit) // settings.max_message_bytes)
        bodies = Bodies(most_bodies, settings.body_seconds)
        self._server = grpc.aio.server(options=_options(settings, shares_port))
        self._server.add_generic_rpc_handlers(
            (MethodHandlers(services.methods, pipeline, bodies, settings.stall_seconds),)
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

        self.is_listening = False

    async def start(self) -> None:
        await self._server.start()
        self.is_listening = True

    @property
    def pid(self) -> int | None:
        return None

    async def stop(self, is_drained: bool) -> None:
        """is_drained: whether every call has ended; those that have not are ended now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._server.stop(0.2 if is_drained else None)


def _options(settings: FrontEndSettings, shares_port: bool) -> list[tuple[str, int]]:
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
        ("grpc.so_reuseport", int(shares_port)),
    ]
