"""One worker as a child: its start, what it is told and asked, its end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import service
from service.child_process import spawn
from service.config import Config
from service.workers.channel import Answer, Channel

_MODULE = "service.workers"


@dataclass(frozen=True)
class Orders:
    """What a worker begins with.

    number: which one it is, from 0. port: of calls; 0 where Envoys have it. is_behind_envoy:
    whether its calls come over sockets from Envoys, or on the port by itself. resume_key: in
    hexadecimal. channel, links, log_lock: descriptors. heap_bytes: of each Envoy.
    """

    number: int
    config: Config
    port: int
    is_behind_envoy: bool
    resume_key: str
    channel: int
    links: int
    log_lock: int
    heap_bytes: int

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def of_json(cls, text: str) -> Orders:
        found = json.loads(text)
        return cls(**found | {"config": _config_of(found["config"])})


def _config_of(values: Mapping[str, Any]) -> Config:
    """Paths cross as text."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Config)}
    read: dict[str, Any] = {
        name: Path(value) if value is not None and "Path" in kinds[name] else value
        for name, value in values.items()
    }
    return Config(**read)


class WorkerProcess:
    """A worker that runs, or did. answer: what it may ask of the parent.

    ended: its exit code, once it has ended; below 0 for a signal.
    """

    def __init__(self, number: int, answer: Answer) -> None:
        self.number = number
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self.channel = Channel(answer)

    async def start(
        self,
        config: Config,
        port: int,
        is_behind_envoy: bool,
        resume_key: bytes,
        log_lock: int,
        heap_bytes: int,
    ) -> None:
        ours, theirs = socket.socketpair()
        self._links, links = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, links:
            orders = Orders(
                self.number,
                config,
                port,
                is_behind_envoy,
                resume_key.hex(),
                theirs.fileno(),
                links.fileno(),
                log_lock,
                heap_bytes,
            )
            self._child = _spawn(orders)
        threading.Thread(target=self._watch, name="worker", daemon=True).start()
        await self.channel.open(ours)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return not self.ended.done()

    def hand(self, link: socket.socket) -> None:
        """A socket to an Envoy."""
        socket.send_fds(self._links, [b"+"], [link.fileno()])

    def kill(self) -> None:
        """It ends at once, whatever it does."""
        if self.is_running:
            self._child.kill()

    async def close(self) -> None:
        """Once it has ended."""
        await self.ended
        self._links.close()
        self.channel.close()

    def _watch(self) -> None:
        code = self._child.wait()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.ended.set_result, code)


def _spawn(orders: Orders) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    paths = [str(Path(service.__file__).parent.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    child = spawn(
        [sys.executable, "-m", _MODULE],
        env=environment,
        stdin=subprocess.PIPE,
        pass_fds=(orders.channel, orders.links, orders.log_lock),
    )
    assert child.stdin is not None, "it is a pipe"
    # Not in its arguments or environment, where others of this machine could read the key.
    with child.stdin as pipe:
        pipe.write(orders.as_json().encode())
    return child
