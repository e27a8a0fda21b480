"""Envoy for as long as the service runs: started, started again where it ended, ended."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from service.access.tls import Credentials
from service.child_process import how_ended
from service.envoy.bootstrap import bootstrap, tls_socket
from service.envoy.installation import find
from service.envoy.log_lines import EnvoyLog
from service.envoy.process import Backend, EnvoyProcess
from service.envoy.secrets import SecretFiles
from service.front_end import AddressInUse, FrontEndSettings

log = logging.getLogger(__name__)

# Until Envoy listens.
_START_SECONDS = 20.0
# Of Envoy's memory, what of requests may wait unread in this process; as much may wait in Envoy.
UNREAD_SHARE = 0.25
# For calls that hold no request any more, such as a watcher's, to end by themselves.
_LAST_SECONDS = 0.2
# Where it ends by itself it is started again at once, then after a pause that doubles. After so
# many ends, each soon after the start before it, the service gives up: whoever runs it can start it
# elsewhere.
_FIRST_PAUSE_SECONDS, _MOST_ENDS, _LASTING_SECONDS = 0.1, 6, 60.0


class EnvoyServer:
    """A FrontEnd.

    backend: serves its calls. credentials: None for no TLS. heap_bytes: near which Envoy sheds
    load. restarted: called for each time that it is started again. lost: called once it is given
    up; the service cannot be reached then. shares_port: with others of its kind.

    Raises EnvoyMissing.
    """

    def __init__(
        self,
        backend: Backend,
        settings: FrontEndSettings,
        credentials: Credentials | None,
        heap_bytes: int,
        restarted: Callable[[], object],
        lost: Callable[[], object],
        shares_port: bool = False,
    ) -> None:
        self.port = 0
        self.is_listening = False
        self._backend = backend
        self._settings = settings
        self._credentials = credentials
        self._heap_bytes = heap_bytes
        self._restarted, self._lost = restarted, lost
        self._shares_port = shares_port
        self._installation = find()
        self._log = EnvoyLog()
        self._secrets: SecretFiles | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._process: EnvoyProcess | None = None

    async def start(self) -> None:
        """Raises AddressInUse."""
        self._host, self.port = _address(self._settings.address, self._shares_port)
        try:
            if self._credentials:
                self._secrets = _secret_files(self._credentials)
            await self._begin()
        except BaseException:
            self._remove_secrets()
            raise
        keeping = [self._secrets.keep()] if self._secrets else []
        self._tasks = [asyncio.create_task(work) for work in (self._supervise(), *keeping)]

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process and process.is_running else None

    async def stop(self, is_drained: bool) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.is_listening = False
        if self._process is not None and self._process.is_running:
            await self._process.stop(_LAST_SECONDS if is_drained else 0.0)
        self._remove_secrets()

    async def _begin(self) -> None:
        """Raises AddressInUse."""
        module = self._installation.module
        config = bootstrap(
            self._settings,
            self._host,
            self.port,
            module,
            self._heap_bytes,
            self._tls(),
            self._shares_port,
        )
        process = EnvoyProcess(self._installation, config, self._backend, self._log)
        self._process = process
        port = await process.start(_START_SECONDS)
        if port is None:
            raise AddressInUse(
                f"cannot listen on {self._settings.address}: Envoy did not start; see its lines "
                "in the log, or give --front-end grpcio"
            )
        # Where it was any free one, callers know the one it was.
        self.port, self.is_listening = port, True

    def _tls(self) -> dict[str, Any] | None:
        return tls_socket(self._secrets.folder, self._secrets.is_mutual) if self._secrets else None

    def _remove_secrets(self) -> None:
        if self._secrets:
            self._secrets.remove()
            self._secrets = None

    async def _supervise(self) -> None:
        """Start Envoy again whenever it ends, until it is given up."""
        loop = asyncio.get_running_loop()
        ends, pause = 0, _FIRST_PAUSE_SECONDS
        while True:
            assert self._process is not None, "it was started"
            began = loop.time()
            living = asyncio.create_task(self._process.keep_alive())
            try:
                await asyncio.wait((self._process.ended,))
            finally:
                living.cancel()
            self.is_listening = False
            if loop.time() - began >= _LASTING_SECONDS:
                ends, pause = 0, _FIRST_PAUSE_SECONDS
            ends += 1
            how = how_ended(self._process.ended.result())
            if ends >= _MOST_ENDS:
                log.critical("Envoy ended by itself %d times in a row, %s: given up", ends, how)
                self._lost()
                return
            log.error("Envoy ended by itself, %s; its calls are ended, it is started again", how)
            self._restarted()
            await asyncio.sleep(pause if ends > 1 else 0)
            pause *= 2
            try:
                await self._begin()
            except (AddressInUse, OSError) as error:
                log.error("Envoy cannot be started again: %s", error)


def _secret_files(credentials: Credentials) -> SecretFiles:
    """Raises AddressInUse."""
    try:
        return SecretFiles(credentials)
    except OSError as error:
        raise AddressInUse(
            f"no folder for what Envoy proves itself with can be made ({error.strerror}); mount "
            "a writable one on /tmp, or give --front-end grpcio"
        ) from error


def _address(address: str, is_shared: bool) -> tuple[str, int]:
    """An IP address and a port that can be listened on. is_shared: by others of this service.

    Raises AddressInUse.
    """
    name, _, number = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            name.removeprefix("[").removesuffix("]"),
            int(number),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            tried.bind(place)
    except OSError as error:
        raise AddressInUse(
            f"cannot listen on {address}: {error.strerror}; stop the other server or give --address"
        ) from error
    return str(place[0]), int(place[1])
