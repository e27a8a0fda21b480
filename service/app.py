"""The composition root: from a configuration to a running service, and down again."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

import service
from service.access.admission import AdmissionControl
from service.access.file_reload import FileUnusable
from service.access.inflight import InflightTracker
from service.access.memory_budget import MemoryBudget
from service.access.security import Security, log_security, secure
from service.config import (
    Config,
    ConfigInvalid,
    default_threads,
    read_keys,
    split_address,
    split_precision,
    usable_cores,
)
from service.constraints.compiling import CompileLimits, Compiler
from service.envoy.installation import EnvoyMissing
from service.envoy.process import AppBackend
from service.envoy.server import UNREAD_SHARE, EnvoyServer
from service.front_end import FRONT_END_SHARE, FrontEnd, front_end_settings
from service.observability.http import HttpServer
from service.observability.logs import flush, watch_loop
from service.observability.metrics import Metrics
from service.observability.pages import Pages, PageServer, PageSource
from service.observability.prom_types import LoopLag
from service.observability.request_log import RequestObserver
from service.oip.adapters import base_name
from service.oip.sharing import Everywhere
from service.process.gc_tuning import settle
from service.process.liveness import Liveness
from service.process.memory import held_bytes, memory_limit, resident_bytes, trim_memory
from service.process.overload import OverloadManager
from service.process.reloading import Reloading
from service.process.signals import on_hang_up
from service.process.stopping import STOPPING, stop_gently
from service.protocols import application_of
from service.runtime.devices import DEVICES, choose_provider, runtime_version
from service.runtime.repository import Precisions, Repository
from service.runtime.sessions import SessionSettings
from service.services import Services
from service.serving.coalescing import clock_of_this_thread
from service.serving.constraints import Constraints
from service.serving.model_factory import ServerContext
from service.serving.model_manager import ModelControl
from service.serving.named_states import MemoryStates, NamedStates
from service.serving.output_stream import Dispatcher
from service.serving.prefix_cache import PrefixCache
from service.serving.presets import Presets
from service.serving.registry import ModelRegistry
from service.serving.resume_token import ResumeTokens
from service.serving.sequences import Sequences
from service.serving.state_files import StateFiles
from service.serving.worker import EngineThread
from service.tasks.registry import adapters_of, build_model, load_modules

log = logging.getLogger(__name__)

# For the spans of the last requests to be sent.
_TRACE_SECONDS = 2.0


class NothingToServe(Exception):
    """Every bundle was refused; the message holds each reason."""


class App:
    """One service: its models' engines, the gRPC server and the HTTP server.

    start() raises ConfigInvalid, NoModels, NothingToServe, DeviceUnavailable, AddressInUse or
    HttpAddressInUse, and then leaves nothing behind.
    """

    def __init__(self, config: Config, collectors: CollectorRegistry | None = None) -> None:
        self.config = config
        self.metrics = Metrics(collectors or CollectorRegistry())
        self.registry = ModelRegistry()
        self.is_ready = False
        self._front_end_pid: Callable[[], int | None] = lambda: None
        limit = memory_limit()
        budget = config.memory_budget_bytes or limit // 4
        most = config.prefix_cache_bytes
        self.prefixes = PrefixCache(
            budget // 4 if most < 0 else most, self.metrics.prefix_evictions.inc
        )
        self.budget = MemoryBudget(budget, self.prefixes)
        self.overload = OverloadManager(
            limit,
            config.overload_share,
            self._held_bytes,
            self._shrink_buffers,
            self._trim_memory,
            time.monotonic,
        )
        self._loop_lag = LoopLag(self._loop_ran)

    async def start(self) -> None:
        config = self.config
        self._loop = asyncio.get_running_loop()
        # Done once callers cannot reach the service any more.
        self.lost: asyncio.Future[None] = self._loop.create_future()
        load_modules(config.task_modules)
        self.security = self._secure()
        self._observer = self._make_observer()
        self.constraints = Constraints(
            Compiler(CompileLimits(config.constraint_seconds)),
            config.constraint_bytes,
            self.metrics,
        )
        self.metrics.constraint_bytes.set_function(lambda: self.constraints.held_bytes)
        self.presets = self._make_presets()
        self.states = self._make_states()
        self.control = self._make_control()
        begun = self.control.begin(*self.control.repository.load_newest())
        self._update_metrics()
        if not begun:
            reasons = "; ".join(bundle.reason for bundle in self.registry.refused)
            raise NothingToServe(f"no bundle under {config.models} can be served: {reasons}")
        self.inflight = InflightTracker(config.max_calls_per_caller)
        self.sequences = self._make_sequences()
        self.services = self._make_services()
        self.liveness = Liveness(config.liveness_seconds, self._engine_threads)
        self.front_end = self._make_front_end()
        self._front_end_pid = lambda: self.front_end.pid
        self.metrics.front_end_memory.set_function(self._front_end_bytes)
        self.metrics.sequences.set_function(lambda: len(self.sequences))
        self.metrics.states.set_function(lambda: len(self.states))
        self.metrics.open_requests.set_function(lambda: self.inflight.calls)
        self.metrics.watch_memory(self.budget, self.overload)
        self.metrics.watch_prefixes(self.prefixes)
        self.http = self._make_http()
        for assembled in begun:
            assembled.start()
        self.http.start()
        self._observer.start()
        await self.front_end.start()
        self.services.open()
        self._loop_lag.start()
        self._polling = self._loop.create_task(self.overload.run())
        self.is_ready = True
        for assembled in begun:
            assembled.warm_reading_later()

    @property
    def open_calls(self) -> int:
        return self.inflight.calls

    async def announce(self) -> None:
        """Ready no more, for whoever asks; calls are still taken."""
        self.is_ready = False
        self.services.announce()

    async def stop(self) -> bool:
        """Stop taking requests, let calls finish within the grace, hand over streams that do
        not, end everything.

        Returns whether every call finished or was handed over.
        """
        await self.announce()
        # Callers that wait for a turn are calls under way: nothing is gained by waiting for them.
        self.control.drop_loads()
        finished = await self.services.drain(self.config.grace_seconds, self.control.hand_over)
        await self.front_end.stop(finished)
        self.constraints.close()
        left_over = await self.control.stop()
        self._loop_lag.stop()
        self._polling.cancel()
        self.http.stop()
        await self._observer.stop(_TRACE_SECONDS)
        # A call that was ended by force may not have given its rows back yet.
        assert not (finished and left_over), f"{left_over} requests kept rows beyond their calls"
        return finished

    def _secure(self) -> Security:
        """Raises ConfigInvalid."""
        failures = self.metrics.reload_failures
        security = secure(self.config, lambda files: failures.labels(files).inc())
        self.metrics.certificate_expiry.set_function(security.certificate_expires)
        log_security(self.config, security)
        return security

    # What another kind of process makes otherwise.

    def _make_observer(self) -> RequestObserver:
        """Raises ConfigInvalid."""
        return observer_of(self.config)

    def _make_sequences(self) -> Sequences:
        config = self.config
        return Sequences(config.max_sequences, config.sequence_idle_seconds, self.budget)

    def _make_presets(self) -> Presets:
        """Raises ConfigInvalid."""
        try:
            return Presets(self.config.presets, self.metrics.reload_failures.labels("presets").inc)
        except FileUnusable as error:
            raise ConfigInvalid(str(error)) from error

    def _make_states(self) -> NamedStates:
        """Raises ConfigInvalid."""
        config, folder = self.config, self.config.state_store
        if folder is None:
            memory = self._memory_for_states()
            return NamedStates(memory, config.max_states, config.state_seconds)
        try:
            files = StateFiles(folder)
        except OSError as error:
            raise ConfigInvalid(f"state_store: {folder} cannot be used ({error})") from error
        return NamedStates(files, config.max_states, config.state_seconds, is_slow=True)

    def _memory_for_states(self) -> MemoryStates | None:
        return MemoryStates(self.budget)

    def _make_services(self, everywhere: Everywhere | None = None) -> Services:
        return Services(
            self.registry,
            self.control,
            self._make_admission(),
            self.sequences,
            adapters_of,
            self._answers_ready,
            self.config.stall_seconds,
            self.states,
            self.presets,
            everywhere,
        )

    def _make_http(self) -> PageServer:
        """Raises HttpAddressInUse."""
        host, port = split_address(self.config.http_address, "http_address")
        return HttpServer(host, port, self._own_pages())

    def _make_tokens(self, own_key: bytes | None = None) -> ResumeTokens:
        """Raises ConfigInvalid."""
        config = self.config
        return ResumeTokens(
            read_keys(config.resume_keys),
            config.resume_seconds,
            config.max_message_bytes,
            own_key=own_key,
        )

    def _make_admission(self) -> AdmissionControl:
        return AdmissionControl(
            self.inflight,
            self.metrics.request_ended,
            self._label,
            self.budget,
            self.security.guard,
            self._observer,
            self.overload.check,
        )

    def _make_front_end(self) -> FrontEnd:
        """Raises AddressInUse or ConfigInvalid."""
        config, credentials = self.config, self.security.credentials
        settings = front_end_settings(config)
        if config.front_end != "grpcio":
            try:
                app = application_of(self.services, settings, self._pages())
                restarted = self.metrics.front_end_restarts.inc
                heap_bytes = int(FRONT_END_SHARE * self.overload.limit)
                backend = AppBackend(app, int(UNREAD_SHARE * heap_bytes))
                return EnvoyServer(
                    backend, settings, credentials, heap_bytes, restarted, self._cut_off
                )
            except EnvoyMissing as error:
                if config.front_end == "envoy":
                    raise ConfigInvalid(f"front_end is 'envoy': {error}") from error
                log.warning("the front end is grpcio, for gRPC alone: %s", error)
        # Imported late: behind Envoy nothing of grpcio's is.
        from service.grpc.credentials import server_credentials
        from service.grpc.server import GrpcServer

        made = server_credentials(credentials) if credentials else None
        return GrpcServer(self.services, settings, made)

    def _pages(self) -> PageSource | None:
        """Those that the port of calls has too."""
        return self._own_pages() if self.config.metrics_on_port else None

    def _own_pages(self) -> Pages:
        return Pages(self.metrics.registry, self.liveness.why_dead, self._why_not_ready)

    def _cut_off(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def _label(self, name: str) -> str:
        """Of a model that a request names: both of its names count as one."""
        known = base_name(name)
        return known if self.registry.knows(known) else ""

    def _make_control(self) -> ModelControl:
        """Raises DeviceUnavailable."""
        config = self.config
        provider = choose_provider(config.device)
        self._update_process_metrics(DEVICES[provider])
        settings = SessionSettings(config.device, provider, config.threads or default_threads())
        context = ServerContext(
            config,
            self.metrics,
            Dispatcher(self._loop),
            clock_of_this_thread(),
            self._make_tokens(),
            self._failed,
            self.budget,
            build_model,
            self.prefixes,
            self.constraints,
            self.presets,
        )
        repository = Repository(
            config.models,
            settings,
            Precisions(*split_precision(config.precision)),
            config.max_bundle_bytes,
        )
        is_on = config.model_control == "explicit"
        return ModelControl(self.registry, repository, context, self._changed, is_on)

    def _answers_ready(self) -> bool:
        return self.is_ready and self.front_end.is_listening and self._all_healthy

    def _why_not_ready(self) -> str:
        if not self.is_ready:
            return "it starts or stops"
        if not self.front_end.is_listening:
            return "its front end ended and is started again"
        return self.liveness.why_not_ready() if self._all_healthy else "an engine has failed"

    def _engine_threads(self) -> list[EngineThread]:
        return [thread for served in self.registry.served for thread in served.threads]

    def _loop_ran(self, late_seconds: float) -> None:
        self.metrics.loop_lag_seconds.observe(late_seconds)
        self.liveness.beat()

    @property
    def _all_healthy(self) -> bool:
        return not any(served.has_failed for served in self.registry.served)

    def _update_metrics(self) -> None:
        served = self.registry.served
        cards = [version.model.card for version in served]
        failed = [(version.name, version.version) for version in served if version.has_failed]
        self.metrics.report_models(cards, self.registry.refused, failed, self.config.max_streams)
        self.metrics.served.show(served)

    def _update_process_metrics(self, device: str) -> None:
        metrics = self.metrics
        metrics.report_build(service.__version__, runtime_version(), device)
        metrics.ready.set_function(self._answers_ready)
        metrics.usable_cores.set(usable_cores())
        metrics.memory_limit.set(memory_limit())

    async def _changed(self, name: str) -> None:
        """What is served of a model is no longer the same, or one of its engines broke."""
        self._update_metrics()
        served = [served for served in self.registry.served if served.name == name]
        is_served = bool(served) and not any(version.has_failed for version in served)
        self.services.report_health(name, is_served, self._all_healthy)

    def _shrink_buffers(self, are_small: bool) -> None:
        """What streams may leave unread shrinks, or is as before; what is cached goes."""
        if are_small:
            self.prefixes.shrink(0)
        self.control.shrink_buffers(are_small)

    def _held_bytes(self) -> int:
        pid = self._front_end_pid()
        return held_bytes() + (held_bytes(pid) if pid else 0)

    def _front_end_bytes(self) -> int:
        pid = self._front_end_pid()
        return resident_bytes(pid) if pid else 0

    def _trim_memory(self) -> None:
        self._loop.run_in_executor(None, trim_memory)

    def _failed(self, name: str) -> None:
        """An engine broke; called on its thread."""
        asyncio.run_coroutine_threadsafe(self._changed(name), self._loop)


def observer_of(config: Config, worker: int | None = None) -> RequestObserver:
    """worker: of which processes this one is; None for the only one.

    Raises ConfigInvalid for an endpoint that is none.
    """
    tracing = None
    if config.trace_endpoint:
        # Imported late: without tracing nothing of OpenTelemetry is.
        from service.observability.tracing import Tracing

        tracing = Tracing(config.trace_endpoint, config.trace_share, worker)
    return RequestObserver(tracing, config.log_requests, config.log_texts)


def loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Of the event loop that carries the front end best; None for Python's own."""
    if config.front_end == "grpcio":
        return None
    try:
        import uvloop
    except ImportError:  # it comes with Envoy
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def serve(config: Config, read_again: Callable[[], Config]) -> int:
    """Run until SIGTERM or SIGINT; a second one ends at once. Returns the exit code: 1 where it
    ended since its front end was lost.

    read_again: the configuration as SIGHUP finds it; raises ConfigInvalid.
    """
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopping.done():
            stopping.set_result(number)

    watch_loop(loop)
    app = App(config)
    await app.start()
    settle()
    # Until here a signal ends the process at once: there is nothing to lose.
    for number in STOPPING:
        loop.add_signal_handler(number, stop, number)
    failed = app.metrics.reload_failures.labels("settings").inc
    reloading = Reloading(config, read_again, app.security, failed)
    on_hang_up(lambda: loop.call_soon_threadsafe(reloading.begin))
    log.info("ready: gRPC on port %d, HTTP on port %d", app.front_end.port, app.http.port)
    await asyncio.wait((stopping, app.lost), return_when=asyncio.FIRST_COMPLETED)
    # Without a front end there are no calls, and nobody to announce a stop to.
    ended_by = stopping.result() if stopping.done() else signal.SIGINT
    await stop_gently(app, ended_by, flush, log)
    return 1 if app.lost.done() else 0
