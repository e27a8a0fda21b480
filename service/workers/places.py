"""Where calls come from: Envoys that hand them to workers, or a port that workers share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.envoy.relay import WORKERS_VARIABLE
from service.envoy.server import EnvoyServer
from service.front_end import AddressInUse
from service.workers.process import WorkerProcess


class WorkersBackend:
    """A Backend of one Envoy: tells its balancer of workers."""

    kind = socket.SOCK_SEQPACKET
    variables: Mapping[str, str] = {WORKERS_VARIABLE: "1"}

    def __init__(self) -> None:
        self.has_answered = True  # the last ping()
        self._orders: socket.socket | None = None
        self._workers: dict[int, WorkerProcess] = {}
        self._asleep: set[int] = set()

    async def attach(self, relay: socket.socket, listening: Callable[[int], None]) -> None:
        self._detach()
        relay.setblocking(False)
        self._orders = relay
        asyncio.get_running_loop().add_reader(relay, self._read, listening)
        for worker in list(self._workers.values()):
            self.add(worker)

    def ping(self) -> None:
        self.has_answered = False
        self._order({"do": "ping"})

    async def end_all(self, seconds: float) -> None:
        """Workers have ended every call by then."""
        self._order({"do": "stop"})

    def add(self, worker: WorkerProcess) -> None:
        """Hand it a socket to Envoy, and Envoy the other end."""
        self._workers[worker.number] = worker
        if self._orders is None or not worker.is_running:
            return
        ours, theirs = socket.socketpair()
        with ours, theirs, contextlib.suppress(OSError):  # it has just ended
            worker.hand(theirs)
            self._order({"do": "add", "worker": worker.number}, ours)
        if worker.number in self._asleep:
            self.set_awake(worker.number, False)

    def set_awake(self, number: int, is_awake: bool) -> None:
        (self._asleep.discard if is_awake else self._asleep.add)(number)
        self._order({"do": "wake" if is_awake else "rest", "worker": number})

    def _order(self, order: dict[str, Any], link: socket.socket | None = None) -> None:
        if self._orders is None:
            return
        with contextlib.suppress(OSError):  # Envoy has just ended
            data = json.dumps(order).encode()
            socket.send_fds(self._orders, [data], [link.fileno()] if link else [])

    def _read(self, listening: Callable[[int], None]) -> None:
        assert self._orders is not None, "it is attached"
        try:
            data = self._orders.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._detach()
        elif "listening" in (told := json.loads(data)):
            listening(told["listening"])
        else:
            self.has_answered = True

    def _detach(self) -> None:
        if self._orders is not None:
            asyncio.get_running_loop().remove_reader(self._orders)
            self._orders.close()
            self._orders = None


class Envoys:
    """All Envoys of the port, and Places for workers. make: one with its backend.

    Raises EnvoyMissing.
    """

    def __init__(self, count: int, make: Callable[[WorkersBackend], EnvoyServer]) -> None:
        self._backends = [WorkersBackend() for _ in range(count)]
        self._servers = list(map(make, self._backends))

    async def start(self) -> None:
        """Raises AddressInUse."""
        await asyncio.gather(*(server.start() for server in self._servers))

    async def stop(self, is_drained: bool) -> None:
        await asyncio.gather(*(server.stop(is_drained) for server in self._servers))

    @property
    def port(self) -> int:
        return self._servers[0].port

    @property
    def is_listening(self) -> bool:
        return any(server.is_listening for server in self._servers)

    @property
    def process_ids(self) -> list[int]:
        return [server.pid for server in self._servers if server.pid]

    def add(self, worker: WorkerProcess) -> None:
        for backend in self._backends:
            backend.add(worker)

    def set_awake(self, number: int, is_awake: bool) -> None:
        for backend in self._backends:
            backend.set_awake(number, is_awake)


class SharedPort:
    """Places where each worker listens on the port by itself: the kernel chooses one for each
    connection."""

    is_listening = True
    process_ids: Sequence[int] = ()

    def __init__(self, port: int) -> None:
        self.port = port

    async def start(self) -> None:
        """Workers have begun to listen."""

    async def stop(self, is_drained: bool) -> None:
        """Workers have ended."""

    def add(self, worker: WorkerProcess) -> None:
        """It takes connections as soon as it listens."""

    def set_awake(self, number: int, is_awake: bool) -> None:
        """It cannot be told: its health says so to whoever balances calls."""


def reserve(address: str) -> socket.socket:
    """A socket that keeps a port for those who share it, and takes no connection itself.

    Raises AddressInUse, also where another service shares the port already.
    """
    name, _, number = address.rpartition(":")
    host = name.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
            place = (place[0], tried.getsockname()[1], *place[2:])
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(place)
    except OSError as error:
        raise AddressInUse(
            f"cannot listen on {address}: {error.strerror}; stop the other server or give --address"
        ) from error
    return held
