"""A worker's end of Envoys that another process runs: each hands its calls on over a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from service.asgi.events import Asgi
from service.envoy.link import Link

# For calls that hold no request any more, such as a watcher's, to end by themselves.
_LAST_SECONDS = 0.2


class LinkedServer:
    """A FrontEnd. port: on which the Envoys listen. sockets: brings one for each Envoy, a datagram
    each. most_unread: as Link has it."""

    pid = None

    def __init__(self, app: Asgi, port: int, sockets: socket.socket, most_unread: int) -> None:
        self.port = port
        self.is_listening = False
        self._app, self._sockets, self._most_unread = app, sockets, most_unread
        self._links: dict[Link, Any] = {}  # their transports

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets.setblocking(False)
        self._loop.add_reader(self._sockets, self._take_sockets)
        self.is_listening = True

    async def stop(self, is_drained: bool) -> None:
        self.is_listening = False
        self._loop.remove_reader(self._sockets)
        seconds = _LAST_SECONDS if is_drained else 0.0
        await asyncio.gather(*(link.end_all(seconds) for link in self._links))
        await asyncio.sleep(0)  # what was posted leaves first
        for transport in self._links.values():
            transport.close()

    def _take_sockets(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sockets, 1, 1)
            except BlockingIOError:
                return
            if not data:  # whoever sent them has ended; that is another's to notice
                self._loop.remove_reader(self._sockets)
                return
            self._loop.create_task(self._open(socket.socket(fileno=descriptors[0])))

    async def _open(self, connection: socket.socket) -> None:
        transport, link = await self._loop.create_connection(
            lambda: _WorkerLink(self._app, self._most_unread, self._forget), sock=connection
        )
        self._links[link] = transport

    def _forget(self, link: Link) -> None:
        self._links.pop(link, None)


class _WorkerLink(Link):
    def __init__(self, app: Asgi, most_unread: int, lost: Callable[[Link], None]) -> None:
        super().__init__(app, _ignore_port, most_unread)
        self._lost = lost

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._lost(self)


def _ignore_port(_: int) -> None:
    """Whoever runs the Envoy knows it."""
