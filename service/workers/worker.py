"""A worker: the service as it is with one process, but for what the parent does for all of them."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from service.app import App, observer_of
from service.envoy.links import LinkedServer
from service.envoy.server import UNREAD_SHARE
from service.front_end import FrontEnd, front_end_settings
from service.observability.logs import set_level, watch_loop
from service.observability.pages import Page
from service.observability.request_log import RequestObserver
from service.oip.sharing import Everywhere, SharedInferenceServicer
from service.process.gc_tuning import settle
from service.process.memory import held_bytes
from service.protocols import application_of
from service.services import Services
from service.serving.resume_token import ResumeTokens
from service.serving.sequences import Sequences
from service.workers.channel import Channel
from service.workers.merging import families_of
from service.workers.process import Orders

log = logging.getLogger(__name__)

_ADVICE = (
    "; this server has several processes, and a sequence's requests must come over one connection"
)
# From its last answer to its end.
_LINGER_SECONDS = 0.1


class WorkerApp(App):
    """parent: where it is asked from, and asks."""

    def __init__(self, orders: Orders, parent: ParentLink) -> None:
        # Whose memory counts towards the limit, once the parent has said so.
        self.process_ids: Sequence[int] = ()
        self._orders, self._parent = orders, parent
        super().__init__(orders.config)

    def _make_observer(self) -> RequestObserver:
        return observer_of(self.config, self._orders.number)

    def _make_sequences(self) -> Sequences:
        config = self.config
        idle_seconds = config.sequence_idle_seconds
        return Sequences(config.max_sequences, idle_seconds, self.budget, _ADVICE)

    def _memory_for_states(self) -> None:
        """Each call may come to another worker, so none keeps what the others do not know."""

    def _make_services(self, everywhere: Everywhere | None = None) -> Services:
        return super()._make_services(self._parent.everywhere)

    def _make_http(self) -> ParentLink:
        return self._parent

    def _make_tokens(self, own_key: bytes | None = None) -> ResumeTokens:
        return super()._make_tokens(bytes.fromhex(self._orders.resume_key))

    def _make_front_end(self) -> FrontEnd:
        """Raises AddressInUse."""
        orders, settings = self._orders, front_end_settings(self.config)
        if orders.is_behind_envoy:
            pages = self._parent if self.config.metrics_on_port else None
            app = application_of(self.services, settings, pages)
            most_unread = int(UNREAD_SHARE * orders.heap_bytes)
            return LinkedServer(app, orders.port, socket.socket(fileno=orders.links), most_unread)
        # Imported late: behind Envoy nothing of grpcio's is.
        from service.grpc.credentials import server_credentials
        from service.grpc.server import GrpcServer

        credentials = self.security.credentials
        made = server_credentials(credentials) if credentials else None
        return GrpcServer(self.services, settings, made, shares_port=True)

    def _held_bytes(self) -> int:
        return sum(map(held_bytes, self.process_ids)) or held_bytes()

    # -- what the parent asks, on the event loop -----------------------------------------------

    async def carry_out(self, method: str, request: bytes) -> bytes:
        inference = self.services.inference
        assert isinstance(inference, SharedInferenceServicer), "a worker has others beside it"
        return await inference.carry_out(method, request)

    async def serve_as(self, wanted: dict[str, Any]) -> None:
        await self.control.serve_as(wanted)

    async def reload(self, log_level: str) -> None:
        set_level(log_level)
        await asyncio.to_thread(self.security.reload)

    async def mind(self, process_ids: Sequence[int]) -> None:
        self.process_ids = process_ids

    async def served(self) -> dict[str, Any]:
        return self.control.served()

    # -- what it asks on any thread ------------------------------------------------------------

    def why_dead(self) -> str:
        return self.liveness.why_dead()

    def why_not_ready(self) -> str:
        return self._why_not_ready()

    @property
    def has_failed(self) -> bool:
        return not self._all_healthy


class ParentLink:
    """The channel to the parent, on a thread with an event loop of its own: it answers while the
    service's loop stands still, and ends this process when the parent has ended.

    A PageServer and a PageSource, whose pages are the parent's: those of all workers together.
    """

    port = 0

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._main = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self.stopping: asyncio.Future[None] = self._main.create_future()
        self._app: WorkerApp | None = None
        self._is_open: asyncio.Future[None] = self._main.create_future()
        self._has_stopped = threading.Event()
        self.is_drained = False

    async def open(self, app: WorkerApp) -> None:
        """From now on the parent is answered."""
        self._app = app
        threading.Thread(target=self._run, name="parent", daemon=True).start()
        await self._is_open

    def start(self) -> None:
        """As a PageServer: it shows nothing by itself."""

    def stop(self) -> None:
        """As a PageServer."""

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._channel = Channel(self._answer)
        await self._channel.open(self._connection)
        self._main.call_soon_threadsafe(self._is_open.set_result, None)
        await self._channel.closed.wait()
        # Whoever would start it again, and hand its calls over, is gone.
        os._exit(1)

    # -- what the parent asks ------------------------------------------------------------------

    async def _answer(self, what: str, arguments: dict[str, Any]) -> Any:
        app = self._app
        assert app is not None, "the channel is open"
        if what == "metrics":
            return families_of(app.metrics.registry)
        if what == "state":
            return {
                "dead": app.why_dead(),
                "not_ready": app.why_not_ready(),
                "has_failed": app.has_failed,
                "calls": app.inflight.calls,
                "healthy": app.services.health.served,
            }
        if what == "serve_beside":
            # Not waited for: the service's loop may stand still.
            show = app.services.health.set_elsewhere
            self._main.call_soon_threadsafe(show, arguments["names"])
            return None
        if what == "carry_out":
            request = base64.b64decode(arguments["request"])
            response = await self._on_main(app.carry_out(arguments["method"], request))
            return base64.b64encode(response).decode()
        if what == "stop":
            self._main.call_soon_threadsafe(self._begin_stop)
            await asyncio.to_thread(self._has_stopped.wait)
            return {"is_drained": self.is_drained, "metrics": families_of(app.metrics.registry)}
        work: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
            "announce": app.announce,
            "serve_as": app.serve_as,
            "served": app.served,
            "reload": app.reload,
            "mind": app.mind,
        }
        return await self._on_main(work[what](**arguments))

    async def _on_main(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._main))

    def _begin_stop(self) -> None:
        if not self.stopping.done():
            self.stopping.set_result(None)

    def stopped(self, is_drained: bool) -> None:
        self.is_drained = is_drained
        self._has_stopped.set()

    # -- what it asks, on the event loop of the service ----------------------------------------

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Raises RequestError."""
        asking = asyncio.run_coroutine_threadsafe(self._channel.ask(what, **arguments), self._loop)
        return await asyncio.wrap_future(asking)

    async def everywhere(self, method: str, model: str, request: bytes) -> list[bytes]:
        """As sharing.Everywhere."""
        encoded = base64.b64encode(request).decode()
        parts = await self.ask("everywhere", method=method, model=model, request=encoded)
        return [base64.b64decode(part) for part in parts]

    async def page(self, path: str, accept: str) -> Page:
        """As a PageSource."""
        found = await self.ask("page", path=path, accept=accept)
        body = base64.b64decode(found["body"])
        return Page(HTTPStatus(found["status"]), body, found["content_type"])


async def serve(orders: Orders) -> int:
    """Until the parent has it stop, or ends. Returns the exit code.

    Raises as App.start() does.
    """
    watch_loop(asyncio.get_running_loop())
    parent = ParentLink(socket.socket(fileno=orders.channel))
    app = WorkerApp(orders, parent)
    await app.start()
    settle()
    await parent.open(app)
    await parent.ask("ready")
    await parent.stopping
    parent.stopped(await app.stop())
    await asyncio.sleep(_LINGER_SECONDS)  # for the answer
    return 0
