"""gRPC over HTTP/2, by hand: what every message passes costs as little as it can.

"gRPC over HTTP2", the protocol's description in grpc/grpc/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from google.protobuf.message import Message

from service.access.identity import Metadata
from service.asgi.calls import CallServer
from service.asgi.events import DIRECT, Direct, Event, Headers, Receive, Scope, Send, peer_of
from service.asgi.metadata import binary_values
from service.asgi.request import ENCODINGS, Body
from service.engine.errors import NotOffered, WrongInput
from service.rpc.methods import Method
from service.rpc.status import OK, Status, status_of

CONTENT_TYPE = b"application/grpc"
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_OK_TRAILERS: Headers = [(b"grpc-status", b"0")]
# What grpc-message holds as it is; every other byte is percent-encoded.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def framed(message: Message) -> bytes:
    """With what gRPC puts before it: that it is not compressed, and its length."""
    data: bytes = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4) + data


class GrpcCall:
    """A ServerCall; see there for what each part is."""

    __slots__ = (
        "_body", "_direct", "_encoding", "_has_started", "_send", "_trailers", "_until",
        "is_multiplexed", "metadata", "method", "peer", "service",
    )  # fmt: skip

    protocol = "grpc"
    START: ClassVar[Event] = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", CONTENT_TYPE), (b"grpc-accept-encoding", ENCODINGS)],
        "trailers": True,
    }

    def __init__(self, scope: Scope, method: Method, body: Body, send: Send) -> None:
        self.service, self.method = method.service, method.name
        self.is_multiplexed = method.is_multiplexed
        self.peer = peer_of(scope)
        self._body, self._send = body, send
        self._direct: Direct | None = scope["extensions"].get(DIRECT)
        self._trailers: Headers = []
        self._has_started = False
        self._encoding, self._until = b"", None  # type: bytes, float | None
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in scope["headers"]:
            if name == b"grpc-timeout":
                self._until = time.monotonic() + _timeout(value)
            elif name == b"grpc-encoding":
                self._encoding = value
            elif name.endswith(b"-bin"):
                metadata += ((name.decode("latin-1"), part) for part in binary_values(value))
            else:
                metadata.append((name.decode("latin-1"), value.decode("latin-1")))
        self.metadata: Metadata = metadata

    def seconds_left(self) -> float | None:
        return None if self._until is None else self._until - time.monotonic()

    def set_trailer(self, name: str, value: str) -> None:
        key = name.encode()
        self._trailers = [pair for pair in self._trailers if pair[0] != key]
        self._trailers.append((key, value.encode()))

    async def read(self) -> bytes | None:
        return await self._body.message(self._encoding)

    async def request(self) -> bytes:
        """The one request of a call that has one. Raises WrongInput."""
        message = await self._body.message(self._encoding)
        if message is None:
            raise WrongInput("the call has no request; send one")
        return message

    async def write(self, message: Message) -> None:
        if self.has_room():
            self.write_now(message.SerializeToString())
            return
        await self._start()
        await self._send({"type": "http.response.body", "body": framed(message), "more_body": True})

    def has_room(self) -> bool:
        return self._has_started and self._direct is not None and self._direct.has_room()

    def write_now(self, data: bytes) -> None:
        assert self._direct is not None, "there is room"
        self._direct.send_now(b"\0" + len(data).to_bytes(4) + data)

    async def send_headers(self) -> None:
        if not self._has_started:
            await self._start()
            # Servers hold headers back until something follows.
            await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def _start(self) -> None:
        if not self._has_started:
            self._has_started = True
            await self._send(self.START)

    async def end(self, status: Status, message: Message | None = None) -> None:
        """With the last message, where the call has one."""
        await self._start()
        body = b"" if message is None else framed(message)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        trailers = _OK_TRAILERS if status is OK and not self._trailers else self.end_of(status)
        await self._send({"type": "http.response.trailers", "headers": trailers})

    def end_of(self, status: Status) -> Headers:
        """The trailers."""
        trailers: Headers = [(b"grpc-status", b"%d" % status.code)]
        if status.message:
            trailers.append((b"grpc-message", quote(status.message, safe=_PLAIN).encode()))
        for name, value in status.trailers():
            sent = b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode()
            trailers.append((name.encode(), sent))
        return trailers + self._trailers


class GrpcProtocol:
    """Calls of ``methods``, by path."""

    def __init__(self, methods: Mapping[str, Method], server: CallServer) -> None:
        self._methods = methods
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = self._server.bodies.of(scope, receive)
        method = self._methods.get(scope["path"])
        if method is None:
            await _refuse_unknown(scope, send)
            return
        try:
            call = GrpcCall(scope, method, body, send)
        except WrongInput as error:
            await _end_at_once(send, status_of(error))
            return
        await self._server.serve(method, call, scope["headers"])


def _timeout(value: bytes) -> float:
    """In seconds. Raises WrongInput."""
    digits, unit = value[:-1], value[-1:]
    if not (digits.isdigit() and len(digits) <= 8 and unit in _SECONDS):
        raise WrongInput("the call's grpc-timeout is none; send up to 8 digits and a unit")
    return int(digits) * _SECONDS[unit]


async def _refuse_unknown(scope: Scope, send: Send) -> None:
    path = scope["path"][:200]
    error = NotOffered(f"there is no method {path}; ask reflection for those there are")
    await _end_at_once(send, status_of(error))


async def _end_at_once(send: Send, status: Status) -> None:
    call = GrpcCall.__new__(GrpcCall)
    call._send, call._trailers, call._has_started = send, [], False
    await call.end(status)
