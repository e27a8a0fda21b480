"""One run of Envoy as a child of the service, and the socket between the two."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from service.asgi.events import Asgi
from service.child_process import spawn
from service.envoy.installation import Installation
from service.envoy.link import Link
from service.envoy.log_lines import FORMAT, EnvoyLog
from service.envoy.relay import SOCKET_VARIABLE

log = logging.getLogger(__name__)

# From its end on until it has left.
_STOP_SECONDS = 5.0
# It is asked so often whether it goes on. One that has not answered so many times in a row, on a
# machine however full, will not any more.
_PING_SECONDS, _MOST_UNANSWERED = 5.0, 6


class Backend(Protocol):
    """Serves the calls of one Envoy at a time, over a socket to the relay within it.

    kind: of the socket. variables: of the relay's environment.
    """

    kind: socket.SocketKind
    variables: Mapping[str, str]

    async def attach(self, relay: socket.socket, listening: Callable[[int], None]) -> None:
        """A new Envoy. listening: to be called with its port once it takes connections."""

    def ping(self) -> None:
        """Ask the relay whether Envoy's process goes on."""

    @property
    def has_answered(self) -> bool:
        """The last ping()."""

    async def end_all(self, seconds: float) -> None:
        """End every call within so many seconds, then Envoy."""


class AppBackend:
    """A Backend of one application in this process. most_unread: as Link has it."""

    kind = socket.SOCK_STREAM
    variables: Mapping[str, str] = {}

    def __init__(self, app: Asgi, most_unread: int) -> None:
        self._app, self._most_unread = app, most_unread

    async def attach(self, relay: socket.socket, listening: Callable[[int], None]) -> None:
        _, self._link = await asyncio.get_running_loop().create_connection(
            lambda: Link(self._app, listening, self._most_unread), sock=relay
        )

    def ping(self) -> None:
        self._link.ping()

    @property
    def has_answered(self) -> bool:
        return self._link.has_answered

    async def end_all(self, seconds: float) -> None:
        await self._link.end_all(seconds)


class EnvoyProcess:
    """backend: serves its calls. config: as bootstrap() makes it.

    ended: its exit code, once it has ended; below 0 for a signal.
    """

    def __init__(
        self,
        installation: Installation,
        config: dict[str, Any],
        backend: Backend,
        log: EnvoyLog,
    ) -> None:
        self._installation, self._config = installation, config
        self._backend, self._log = backend, log
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Future[int] = self._loop.create_future()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._has_begun = False

    async def start(self, seconds: float) -> int | None:
        """The port that it listens on; None where it does not within ``seconds``: it is killed
        then, if it still runs."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, self._backend.kind)
        with theirs:
            self._child = self._spawn(theirs)
        self._has_begun = True
        await self._backend.attach(ours, self._set_port)
        self._threads = [
            threading.Thread(target=work, name="envoy", daemon=True)
            for work in (self._watch, self._read_log)
        ]
        for thread in self._threads:
            thread.start()
        waiting = (self._listening, self.ended)
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._listening.done():
            return self._listening.result()
        self._child.kill()
        await self._has_left()
        return None

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._has_begun and not self.ended.done()

    async def keep_alive(self) -> None:
        """Until it has ended; kills one that is there and does nothing."""
        unanswered = 0
        while self.is_running:
            self._backend.ping()
            # Turns are counted, not time: what stops both processes for a while ends neither.
            await asyncio.sleep(_PING_SECONDS)
            unanswered = 0 if self._backend.has_answered else unanswered + 1
            if unanswered >= _MOST_UNANSWERED:
                log.error("Envoy has hung for %g s: it is killed", unanswered * _PING_SECONDS)
                self._child.kill()
                return

    async def stop(self, seconds: float) -> None:
        """End every call within so many seconds, and Envoy once what was written has left."""
        await self._backend.end_all(seconds)
        await asyncio.wait((self.ended,), timeout=_STOP_SECONDS)
        if self.is_running:
            self._child.kill()
        await self._has_left()

    async def _has_left(self) -> None:
        await self.ended
        for thread in self._threads:
            thread.join(1.0)

    def _spawn(self, relay: socket.socket) -> subprocess.Popen[bytes]:
        environment = self._installation.environment() | dict(self._backend.variables)
        environment[SOCKET_VARIABLE] = str(relay.fileno())
        command = [
            self._installation.program,
            "--config-yaml", json.dumps(self._config),
            "--log-level", "warning",
            "--log-format", FORMAT,
            "--log-format-escaped",
            "--disable-hot-restart",
            "--concurrency", "1",
        ]  # fmt: skip
        # The relay lets signals in.
        return spawn(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(relay.fileno(),),
        )

    def _watch(self) -> None:
        code = self._child.wait()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.ended.set_result, code)

    def _read_log(self) -> None:
        assert self._child.stderr is not None, "it is a pipe"
        with self._child.stderr as lines:
            self._log.read(lines)

    def _set_port(self, port: int) -> None:
        if not self._listening.done():
            self._listening.set_result(port)
