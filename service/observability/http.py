"""Metrics and health over HTTP, for scrapers and probes that do not speak gRPC.

One thread with an event loop of its own: it answers while the service's loop stands still. What
anybody can do to it is bounded: connections, and for each of them bytes and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Sequence
from http import HTTPStatus

from service.observability.pages import Page, Pages

log = logging.getLogger(__name__)

# Probes and scrapers need a few; the oldest one makes room for a new one.
_MOST_CONNECTIONS = 32
# For the whole of a request, and for all of an answer to be read.
_REQUEST_SECONDS, _ANSWER_SECONDS = 5.0, 10.0
_MOST_REQUEST_BYTES = 8192
# While no connection can be accepted.
_PAUSE_SECONDS = 0.2
_STOP_SECONDS = 2.0


class HttpAddressInUse(Exception):
    """The server cannot listen on the address it was given."""


class HttpServer:
    """Pages, to whoever asks; they are made on the server's own thread.

    Raises HttpAddressInUse.
    """

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self._pages = pages
        try:
            self._socket = _listen(host, port)
        except OSError as error:
            raise HttpAddressInUse(
                f"cannot listen on {host}:{port}: {error.strerror}; "
                "stop the other server or give --http-address"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        # By age.
        self._connections: dict[asyncio.Task[None], None] = {}
        # Given up for a connection where the process may open no other file.
        self._spare: int | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends connections, answered or not."""
        with contextlib.suppress(RuntimeError):  # its loop has ended already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        with contextlib.closing(self._loop), self._socket:
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._take_spare()
        accepting = asyncio.create_task(self._accept_all())
        await self._stopping.wait()
        tasks = [accepting, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._give_spare()

    # -- connections ---------------------------------------------------------------------------

    async def _accept_all(self) -> None:
        while True:
            await self._wait_for_one()
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:  # it has left
                continue
            except OSError:
                await self._make_room()
                continue
            connection.setblocking(False)
            self._attend_to(connection)
            if len(self._connections) > _MOST_CONNECTIONS:
                await self._end_oldest()

    async def _wait_for_one(self) -> None:
        """accept() cannot say that nobody comes where the process may open no other file."""
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._socket, came.set)
        try:
            await came.wait()
        finally:
            loop.remove_reader(self._socket)

    async def _make_room(self) -> None:
        """No connection can be accepted, mostly since the process may open no other file."""
        if self._spare is not None:
            self._give_spare()
        elif self._connections:
            await self._end_oldest()
        else:
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _end_oldest(self) -> None:
        """It had time to ask and to be answered; a newer one may be a probe."""
        oldest = next(iter(self._connections))
        oldest.cancel()
        await asyncio.wait((oldest,))

    def _attend_to(self, connection: socket.socket) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            connection.close()
            del self._connections[task]
            if self._spare is None:
                self._take_spare()

        task = asyncio.create_task(self._attend(connection))
        self._connections[task] = None
        task.add_done_callback(ended)

    def _take_spare(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _give_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    async def _attend(self, connection: socket.socket) -> None:
        # It left, or took too long: a timeout is an OSError too.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await _read_head(connection)
            answer = await self._answer(head)
            async with asyncio.timeout(_ANSWER_SECONDS):
                await asyncio.get_running_loop().sock_sendall(connection, _written(answer))

    # -- answers -------------------------------------------------------------------------------

    async def _answer(self, head: bytes) -> Page:
        if len(head) > _MOST_REQUEST_BYTES:
            return Page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"the request is too long\n")
        line, *headers = head.decode("latin-1").splitlines()
        method, target, version = (*line.split(" "), "", "", "")[:3]
        if not version.startswith("HTTP/1."):
            return Page(HTTPStatus.BAD_REQUEST, b"this is no request of HTTP/1\n")
        if method != "GET":
            return Page(HTTPStatus.METHOD_NOT_ALLOWED, b"try GET\n")
        try:
            path = target.partition("?")[0]
            return await self._pages.page(path, _value_of("accept", headers))
        except Exception:
            log.exception("an HTTP request failed")
            return Page(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the server's log\n")


def _written(page: Page) -> bytes:
    allow = "Allow: GET\r\n" if page.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    return (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        f"{allow}Connection: close\r\n\r\n"
    ).encode() + page.body


async def _read_head(connection: socket.socket) -> bytes:
    """A request's line and headers, or more than they may be.

    Raises ConnectionError where the caller leaves before.
    """
    loop, head = asyncio.get_running_loop(), b""
    while not (b"\r\n\r\n" in head or len(head) > _MOST_REQUEST_BYTES):
        if not (part := await loop.sock_recv(connection, _MOST_REQUEST_BYTES)):
            raise ConnectionError("the caller left before its request was whole")
        head += part
    return head


def _value_of(name: str, headers: Sequence[str]) -> str:
    """Of a header, empty without it; name: in lower case."""
    pairs = (header.partition(":") for header in headers)
    return ",".join(value.strip() for key, _, value in pairs if key.lower() == name)


def _listen(host: str, port: int) -> socket.socket:
    is_six = ":" in host
    made = socket.create_server(
        (host, port),
        family=socket.AF_INET6 if is_six else socket.AF_INET,
        backlog=128,
        dualstack_ipv6=is_six and socket.has_dualstack_ipv6(),
    )
    made.setblocking(False)
    return made
