"""gRPC over HTTP/2, by hand: what every message passes costs as little as it can.

"gRPC over HTTP2", the protocol's description in grpc/grpc/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from google.protobuf.message import Message

from service.access.identity import Metadata
from service.asgi.calls import CallServer
from service.asgi.events import (
    DIRECT,
    NOTES,
    Direct,
    Event,
    Headers,
    Receive,
    Scope,
    Send,
    header,
    peer_of,
)
from service.asgi.metadata import binary_values, header_bytes
from service.asgi.request import ENCODINGS, Body
from service.engine.errors import NotOffered, RequestError, WrongInput
from service.rpc.call import Take
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


class GrpcHead:
    """What the head of a call says; of equal heads one serves all calls.

    size: of its headers, as header_bytes() has it. encoding: of its messages. timeout: in seconds,
    None for none. Raises WrongInput for a head that cannot be read.
    """

    __slots__ = ("encoding", "metadata", "method", "peer", "size", "timeout")

    def __init__(self, scope: Scope, method: Method) -> None:
        self.method, self.peer = method, peer_of(scope)
        self.size = header_bytes(scope["headers"])
        self.encoding, self.timeout = b"", None  # type: bytes, float | None
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in scope["headers"]:
            if name == b"grpc-timeout":
                self.timeout = _timeout(value)
            elif name == b"grpc-encoding":
                self.encoding = value
            elif name.endswith(b"-bin"):
                metadata += ((name.decode("latin-1"), part) for part in binary_values(value))
            else:
                metadata.append((name.decode("latin-1"), value.decode("latin-1")))
        self.metadata: Metadata = tuple(metadata)


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

    def __init__(self, head: GrpcHead, body: Body, send: Send, direct: Direct | None) -> None:
        method = head.method
        self.service, self.method = method.service, method.name
        self.is_multiplexed = method.is_multiplexed
        self.peer, self.metadata = head.peer, head.metadata
        self._body, self._send, self._direct = body, send, direct
        self._trailers: Headers = []
        self._has_started = False
        self._encoding = head.encoding
        self._until = None if head.timeout is None else time.monotonic() + head.timeout

    def seconds_left(self) -> float | None:
        return None if self._until is None else self._until - time.monotonic()

    def set_trailer(self, name: str, value: str) -> None:
        key = name.encode()
        if self._trailers:
            self._trailers = [pair for pair in self._trailers if pair[0] != key]
        self._trailers.append((key, value.encode()))

    async def read(self) -> bytes | None:
        return await self._body.message(self._encoding)

    def read_through(self, take: Take | None) -> None:
        if self._direct is not None:
            self._direct.read_through(None if take is None else partial(self._taken, take))

    def _taken(self, take: Take, part: bytes) -> bool:
        """Of a part of the body: whether it is one whole message, and was taken."""
        is_whole = (
            len(part) >= 5
            and part[0] == 0
            and int.from_bytes(part[1:5]) == len(part) - 5
            and self._body.is_between_messages
        )
        return is_whole and take(part[5:])

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
        body = b"" if message is None else framed(message)
        trailers = self.end_of(status)
        if not self._has_started and self._direct is not None:
            self._has_started = self._direct.answer_now(self.START, body, trailers)
            if self._has_started:
                return
        await self._start()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        await self._send({"type": "http.response.trailers", "headers": trailers})

    def end_of(self, status: Status) -> Headers:
        """The trailers."""
        if status is OK:
            return _OK_TRAILERS + self._trailers
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

    def speaks(self, scope: Scope) -> bool:
        content_type = header(scope, b"content-type")
        return content_type == CONTENT_TYPE or content_type.startswith(
            (CONTENT_TYPE + b"+proto", CONTENT_TYPE + b";")
        )

    def serve(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        try:
            head = self._head(scope)
        except RequestError as error:
            return _end_at_once(send, status_of(error))
        body = self._server.bodies.of(head.peer, receive)
        call = GrpcCall(head, body, send, scope["extensions"].get(DIRECT))
        return self._server.serve(head.method, call, head.size)

    def _head(self, scope: Scope) -> GrpcHead:
        """Raises NotOffered or WrongInput."""
        notes = scope["extensions"].get(NOTES)
        if notes is not None and GrpcHead in notes:
            known: GrpcHead = notes[GrpcHead]
            return known
        method = self._methods.get(scope["path"])
        if method is None:
            path = scope["path"][:200]
            raise NotOffered(f"there is no method {path}; ask reflection for those there are")
        head = GrpcHead(scope, method)
        if notes is not None:
            notes[GrpcHead] = head
        return head


def _timeout(value: bytes) -> float:
    """In seconds. Raises WrongInput."""
    digits, unit = value[:-1], value[-1:]
    if not (digits.isdigit() and len(digits) <= 8 and unit in _SECONDS):
        raise WrongInput("the call's grpc-timeout is none; send up to 8 digits and a unit")
    return int(digits) * _SECONDS[unit]


async def _end_at_once(send: Send, status: Status) -> None:
    call = GrpcCall.__new__(GrpcCall)
    call._send, call._direct, call._trailers, call._has_started = send, None, [], False
    await call.end(status)
