"""The parent: what one process shows of several, and the signals that are for all."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from service.access.security import log_security, secure
from service.config import Config, ConfigInvalid, split_address, usable_cores
from service.envoy.installation import EnvoyMissing, find
from service.envoy.server import EnvoyServer
from service.front_end import FRONT_END_SHARE, front_end_settings
from service.observability.http import HttpServer
from service.observability.logs import flush, watch_loop
from service.observability.metrics import Metrics
from service.observability.pages import Pages
from service.observability.prom_types import LoopLag
from service.process.liveness import Liveness
from service.process.memory import memory_limit, resident_bytes
from service.process.reloading import Reloading
from service.process.signals import on_hang_up
from service.process.stopping import STOPPING, stop_gently
from service.serving.resume_token import new_key
from service.workers.count import envoy_count, share_of
from service.workers.merging import MergedMetrics
from service.workers.metrics import WorkerMetrics
from service.workers.places import Envoys, SharedPort, WorkersBackend, reserve
from service.workers.pool import WorkerPool
from service.workers.process import WorkerProcess

log = logging.getLogger(__name__)


class Parent:
    """Workers, what is in front of them, and one page and one verdict of all.

    start() raises ConfigInvalid, AddressInUse, HttpAddressInUse or WorkersFailed.
    """

    def __init__(self, config: Config, count: int) -> None:
        self.config, self.count = config, count
        own = CollectorRegistry()
        self.metrics = Metrics(own)
        self.registry = CollectorRegistry()
        self.watcher = WorkerMetrics(MergedMetrics(self.registry, own), own)
        self.is_ready = False
        self._held: list[socket.socket] = []
        self._heap_bytes = 0  # of each Envoy
        self._loop_lag = LoopLag(lambda _: self.liveness.beat())

    async def start(self) -> None:
        config = self.config
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        failures = self.metrics.reload_failures
        self.security = secure(config, lambda files: failures.labels(files).inc())
        log_security(config, self.security)
        self.liveness = Liveness(config.liveness_seconds, lambda: ())
        self.front = self._make_front()
        self._shares = share_of(config, self.count)
        self.pool = WorkerPool(
            self._shares,
            self.count,
            self.front,
            self.watcher,
            self._start_worker,
            self._process_ids,
            self._page,
            self._cut_off,
        )
        self._own_pages = self._pages(self.pool.collect)
        self._add_metrics()
        host, port = split_address(config.http_address, "http_address")
        self.http = HttpServer(host, port, self._pages(self._collect_from_afar))
        self._loop_lag.start()
        self._log_lock = os.memfd_create("unroll-log")
        self._resume_key = new_key()
        try:
            await self.pool.start()
            await self.front.start()
        except BaseException:
            self.pool.kill()
            raise
        self.http.start()
        self.pool.supervise()
        self.is_ready = True

    def reload_workers(self, log_level: str | None) -> None:
        """As Reloading's spread; called on another thread."""
        asyncio.run_coroutine_threadsafe(self.pool.reload(log_level), self._loop)

    @property
    def open_calls(self) -> int:
        return sum(slot.calls for slot in self.pool.slots)

    async def announce(self) -> None:
        self.is_ready = False
        await self.pool.announce()

    async def stop(self) -> bool:
        """Returns whether every call finished or was handed over."""
        self.is_ready = False
        finished = await self.pool.stop(0.0)
        await self.front.stop(finished)
        self._loop_lag.stop()
        self.http.stop()
        for held in self._held:
            held.close()
        return finished

    # -- in front of the workers ---------------------------------------------------------------

    def _make_front(self) -> Envoys | SharedPort:
        """Raises AddressInUse, ConfigInvalid or EnvoyMissing."""
        config = self.config
        if config.front_end != "grpcio":
            try:
                return self._make_envoys()
            except EnvoyMissing as error:
                if config.front_end == "envoy":
                    raise ConfigInvalid(f"front_end is 'envoy': {error}") from error
                log.warning("the front end is grpcio, for gRPC alone: %s", error)
        return SharedPort(self._reserve())

    def _make_envoys(self) -> Envoys:
        """Raises AddressInUse or EnvoyMissing."""
        find()
        count = envoy_count(self.count)
        self._heap_bytes = int(FRONT_END_SHARE * memory_limit()) // count
        settings = front_end_settings(self.config)
        if count > 1:
            port, host = self._reserve(), settings.address.rpartition(":")[0]
            most = math.ceil(settings.max_connections / count)
            settings = replace(settings, address=f"{host}:{port}", max_connections=most)
        restarted = self.metrics.front_end_restarts.inc

        def make(backend: WorkersBackend) -> EnvoyServer:
            credentials = self.security.credentials
            return EnvoyServer(
                backend, settings, credentials, self._heap_bytes, restarted, self._cut_off,
                shares_port=count > 1,
            )  # fmt: skip

        return Envoys(count, make)

    def _reserve(self) -> int:
        """The port, which is kept for the processes that share it. Raises AddressInUse."""
        held = reserve(self.config.address)
        self._held.append(held)
        port: int = held.getsockname()[1]
        return port

    async def _start_worker(self, worker: WorkerProcess) -> None:
        config, is_behind_envoy = self._shares, isinstance(self.front, Envoys)
        if not is_behind_envoy:
            host = config.address.rpartition(":")[0]
            config = replace(config, address=f"{host}:{self.front.port}", front_end="grpcio")
        await worker.start(
            config, self.front.port, is_behind_envoy, self._resume_key, self._log_lock,
            self._heap_bytes,
        )  # fmt: skip

    def _process_ids(self) -> list[int]:
        """Beside workers, those whose memory counts towards the limit."""
        return [os.getpid(), *self.front.process_ids]

    def _cut_off(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    # -- one page and one verdict --------------------------------------------------------------

    def _add_metrics(self) -> None:
        metrics = self.metrics
        metrics.ready.set_function(lambda: not self.why_not_ready())
        metrics.certificate_expiry.set_function(self.security.certificate_expires)
        metrics.usable_cores.set(usable_cores())
        metrics.memory_limit.set(memory_limit())
        metrics.front_end_memory.set_function(
            lambda: sum(map(resident_bytes, self.front.process_ids))
        )
        self.watcher.watch(self.pool)

    def why_not_ready(self) -> str:
        """Empty while callers reach a worker."""
        if not self.is_ready:
            return "it starts or stops"
        if not self.front.is_listening:
            return "its front end ended and is started again"
        return self.liveness.why_not_ready() or self.pool.why_not_ready()

    def _pages(self, collect: Callable[[], Awaitable[None]]) -> Pages:
        # Workers that stand still are killed and started again, so the parent's own life is all.
        return Pages(self.registry, self.liveness.why_dead, self.why_not_ready, collect)

    async def _collect_from_afar(self) -> None:
        """On another loop than the pool's."""
        collecting = asyncio.run_coroutine_threadsafe(self.pool.collect(), self._loop)
        await asyncio.wrap_future(collecting)

    async def _page(self, path: str, accept: str) -> dict[str, Any]:
        """For a worker, whose caller wants it."""
        page = await self._own_pages.page(path, accept)
        body = base64.b64encode(page.body).decode()
        return {"status": page.status.value, "body": body, "content_type": page.content_type}


async def serve(config: Config, read_again: Callable[[], Config], count: int) -> int:
    """As app.serve(), with so many workers. Raises as Parent.start() does."""
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopping.done():
            stopping.set_result(number)

    watch_loop(loop)
    parent = Parent(config, count)
    await parent.start()
    for number in STOPPING:
        loop.add_signal_handler(number, stop, number)
    failed = parent.metrics.reload_failures.labels("settings").inc
    reloading = Reloading(config, read_again, parent.security, failed, parent.reload_workers)

    def reload() -> None:
        loop.call_soon_threadsafe(reloading.begin)

    on_hang_up(reload)
    ports = (parent.front.port, parent.http.port)
    log.info("ready: gRPC on port %d, HTTP on port %d, %d workers", *ports, count)
    await asyncio.wait((stopping, parent.lost), return_when=asyncio.FIRST_COMPLETED)

    def last() -> None:
        parent.pool.kill()
        flush()

    ended_by = stopping.result() if stopping.done() else signal.SIGINT
    await stop_gently(parent, ended_by, last, log)
    return 1 if parent.lost.done() else 0
