"""The composition root: from a configuration to a running service, and down again."""

from __future__ import annotations

import asyncio
import logging
import signal

from prometheus_client import CollectorRegistry

from service.assembly import Surroundings
from service.config import Config, default_threads, read_keys, split_address, split_precision
from service.control import ModelControl
from service.engine.catalogue import Catalogue
from service.engine.pacing import clock_of_this_thread
from service.engine.resuming import ResumeTokens
from service.engine.streams import Hand
from service.http import HttpServer
from service.interpreter import settle
from service.metrics import Metrics
from service.rpc.server import GrpcServer, GrpcSettings
from service.runtime.devices import choose_provider
from service.runtime.repository import Precisions, Repository
from service.runtime.sessions import SessionSettings

log = logging.getLogger(__name__)


class NothingToServe(Exception):
    """Every bundle was refused; the message holds each reason."""


class App:
    """One service: its models' engines, the gRPC server and the HTTP server.

    start() raises NoModels, NothingToServe, DeviceUnavailable, AddressInUse or
    HttpAddressInUse, and then leaves nothing behind.
    """

    def __init__(self, config: Config, registry: CollectorRegistry | None = None) -> None:
        self.config = config
        self.metrics = Metrics(registry or CollectorRegistry())
        self.catalogue = Catalogue()
        self.is_ready = False

    async def start(self) -> None:
        config = self.config
        self._loop = asyncio.get_running_loop()
        self.control = self._make_control()
        begun = self.control.begin(*self.control.repository.load_newest())
        self._tell_metrics()
        if not begun:
            reasons = "; ".join(bundle.reason for bundle in self.catalogue.refused)
            raise NothingToServe(f"no bundle under {config.models} can be served: {reasons}")
        self.grpc = GrpcServer(
            self.catalogue,
            self.control,
            GrpcSettings(
                config.address,
                config.max_message_bytes,
                config.stall_seconds,
                config.max_sequences,
                config.sequence_idle_seconds,
            ),
            self._answers_ready,
            self._count_request,
        )
        self.metrics.sequences.set_function(lambda: len(self.grpc.sequences))
        host, port = split_address(config.http_address, "http_address")
        self.http = HttpServer(host, port, self.metrics.registry, self._answers_ready)
        for assembled in begun:
            assembled.start()
        self.http.start()
        await self.grpc.start()
        self.is_ready = True
        for assembled in begun:
            assembled.warm_reading_later()
        log.info("ready: gRPC on port %d, HTTP on port %d", self.grpc.port, self.http.port)

    async def stop(self) -> bool:
        """Stop taking requests, let streams finish within the grace, end everything.

        Returns whether every stream finished.
        """
        self.is_ready = False
        finished = await self.grpc.stop(self.config.grace_seconds)
        await self.control.stop()
        self.http.stop()
        return finished

    def _make_control(self) -> ModelControl:
        """Raises DeviceUnavailable."""
        config = self.config
        provider = choose_provider(config.device)
        settings = SessionSettings(config.device, provider, config.threads or default_threads())
        around = Surroundings(
            config,
            self.metrics,
            Hand(self._loop),
            clock_of_this_thread(),
            ResumeTokens(
                read_keys(config.resume_keys), config.resume_seconds, config.max_message_bytes
            ),
            self._failed,
        )
        repository = Repository(
            config.models, settings, Precisions(*split_precision(config.precision))
        )
        is_on = config.model_control == "explicit"
        return ModelControl(self.catalogue, repository, around, self._changed, is_on)

    def _answers_ready(self) -> bool:
        return self.is_ready and self._all_well

    @property
    def _all_well(self) -> bool:
        return not any(served.has_failed for served in self.catalogue.served)

    def _count_request(self, model: str, method: str, code: str) -> None:
        self.metrics.requests.labels(model, method, code).inc()

    def _tell_metrics(self) -> None:
        cards = [model.card for model in self.catalogue.models]
        self.metrics.tell_models(cards, self.catalogue.refused)

    async def _changed(self, name: str) -> None:
        """What is served of a model is no longer the same, or one of its engines broke."""
        self._tell_metrics()
        served = [served for served in self.catalogue.served if served.name == name]
        is_served = bool(served) and not any(version.has_failed for version in served)
        await self.grpc.tell_health(name, is_served, self._all_well)

    def _failed(self, name: str) -> None:
        """An engine broke; called on its thread."""
        asyncio.run_coroutine_threadsafe(self._changed(name), self._loop)


async def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; a second one ends at once. Returns the exit code."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    app = App(config)
    await app.start()
    settle()
    await asked.wait()
    log.info(
        "stopping: %d calls under way, grace %.0f s", app.grpc.gate.calls, config.grace_seconds
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    finished = await app.stop()
    log.info("stopped, %s", "every call finished" if finished else "some calls were ended")
    return 0
