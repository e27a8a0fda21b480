"""Calls of Connect: one message each way, or messages in envelopes.

https://connectrpc.com/docs/protocol
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from service.access.identity import Metadata
from service.asgi.events import Headers, Scope, Send, header, peer_of
from service.asgi.http import headers_of, http_status
from service.asgi.metadata import metadata_of
from service.asgi.request import Body, inflated
from service.connect import compression
from service.connect.codecs import Codec
from service.connect.compression import GZIP, takes_gzip
from service.connect.errors import dumped, error_json, error_of
from service.engine.errors import RequestError, WrongInput
from service.rpc.call import Take
from service.rpc.methods import Method
from service.rpc.status import OK, Status, status_of

JSON = b"application/json"
ACCEPTED = b"gzip"
_VERSION = b"1"
_MOST_DIGITS = 10  # of a timeout
_COMPRESSED, _END = 1, 2  # flags of an envelope


def encoding_of(name: bytes) -> bytes:
    return b"" if name == b"identity" else name


def envelope(flags: int, data: bytes) -> bytes:
    return bytes((flags,)) + len(data).to_bytes(4) + data


class ConnectCall:
    """A ServerCall; see there for what each part is.

    codec: of the call's messages. Raises WrongInput for headers that are none.
    """

    protocol = "connect"

    def __init__(self, scope: Scope, method: Method, send: Send, codec: Codec) -> None:
        self.service, self.method = method.service, method.name
        self.is_multiplexed = method.is_multiplexed
        self.peer = peer_of(scope)
        self.metadata: Metadata = metadata_of(scope["headers"])
        self._type = method.request
        self._send, self._codec = send, codec
        self._trailers: dict[str, str] = {}
        self._until = _deadline(scope)

    def seconds_left(self) -> float | None:
        return None if self._until is None else self._until - time.monotonic()

    def set_trailer(self, name: str, value: str) -> None:
        self._trailers[name] = value

    def read_through(self, take: Take | None) -> None:
        """Messages are converted, and waited for."""

    def has_room(self) -> bool:
        return False  # as there

    def write_now(self, data: bytes) -> None:
        raise AssertionError("there is never room at once")


class UnaryCall(ConnectCall):
    """body: reads the request as it came, uncompressed."""

    def __init__(
        self,
        scope: Scope,
        method: Method,
        send: Send,
        codec: Codec,
        body: Callable[[], Awaitable[bytes]],
    ) -> None:
        super().__init__(scope, method, send, codec)
        self._body = body
        self._takes_gzip = takes_gzip(header(scope, b"accept-encoding"))

    async def read(self) -> bytes | None:
        return await self.request()

    async def request(self) -> bytes:
        return await self._codec.read(await self._body(), self._type)

    async def write(self, message: Message) -> None:
        await self.end(OK, message)

    async def send_headers(self) -> None:
        """The answer brings them."""

    async def end(self, status: Status, message: Message | None = None) -> None:
        answer = b""
        if message is not None:
            try:
                answer = await self._codec.write(message)
            except RequestError as error:
                status = status_of(error)
        kind, code, extra = b"application/" + self._codec.name.encode(), 200, Headers()
        if status is not OK:
            answer, kind, code = error_json(status), JSON, http_status(status)
            extra = headers_of(status)
        elif self._takes_gzip and compression.is_worth_it(answer):
            answer = await compression.compressed(answer)
            extra = [(b"content-encoding", GZIP)]
        await answer_whole(self._send, code, kind, answer, extra + self._trailing())

    def _trailing(self) -> Headers:
        trailing = [
            (b"trailer-" + name.encode(), value.encode()) for name, value in self._trailers.items()
        ]
        return [(b"vary", b"accept-encoding"), *trailing]


class StreamCall(ConnectCall):
    """A call whose messages come in envelopes, whatever their number."""

    def __init__(self, scope: Scope, method: Method, send: Send, codec: Codec, body: Body) -> None:
        super().__init__(scope, method, send, codec)
        self._body = body
        self._encoding = encoding_of(header(scope, b"connect-content-encoding"))
        self._takes_gzip = takes_gzip(header(scope, b"connect-accept-encoding"))
        self._has_started = False

    async def read(self) -> bytes | None:
        data = await self._body.message(self._encoding)
        return None if data is None else await self._codec.read(data, self._type)

    async def request(self) -> bytes:
        message = await self.read()
        if message is None:
            raise WrongInput("the call has no request; send one")
        return message

    async def write(self, message: Message) -> None:
        if not self._has_started:
            await self._start()
        await self._put(await self._enveloped(message))

    async def _enveloped(self, message: Message) -> bytes:
        data = await self._codec.write(message)
        if self._takes_gzip and compression.is_worth_it(data):
            return envelope(_COMPRESSED, await compression.compressed(data))
        return envelope(0, data)

    async def send_headers(self) -> None:
        if not self._has_started:
            await self._start()
            # Envoy keeps headers back until there is some of the body.
            await self._put(b"")

    async def _start(self) -> None:
        self._has_started = True
        headers = [
            (b"content-type", b"application/connect+" + self._codec.name.encode()),
            (b"connect-accept-encoding", ACCEPTED),
        ]
        if self._takes_gzip:
            headers.append((b"connect-content-encoding", GZIP))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _put(self, body: bytes, is_last: bool = False) -> None:
        event = {"type": "http.response.body", "body": body, "more_body": not is_last}
        await self._send(event)

    async def end(self, status: Status, message: Message | None = None) -> None:
        if message is not None:
            try:
                await self.write(message)
            except RequestError as error:
                status = status_of(error)
        if not self._has_started:
            await self._start()
        last: dict[str, object] = {}
        if status is not OK:
            last["error"] = error_of(status)
        if self._trailers:
            last["metadata"] = {name: [value] for name, value in self._trailers.items()}
        await self._put(envelope(_END, dumped(last)), is_last=True)


async def end_stream(send: Send, codec: bytes, status: Status) -> None:
    """One that never was a call. codec: its name."""
    headers = [(b"content-type", b"application/connect+" + codec)]
    body = envelope(_END, dumped({"error": error_of(status)}))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_whole(
    send: Send, status: int, kind: bytes, body: bytes, headers: Headers | None = None
) -> None:
    """kind: the content type."""
    named = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send(
        {"type": "http.response.start", "status": status, "headers": named + (headers or [])}
    )
    await send({"type": "http.response.body", "body": body})


def uncompressed(data: bytes, encoding: bytes, most: int) -> bytes:
    """Raises as ``inflated``."""
    return inflated(data, encoding, most) if encoding and data else data


def _deadline(scope: Scope) -> float | None:
    """On the monotonic clock. Raises WrongInput, for another version of Connect too."""
    version = header(scope, b"connect-protocol-version")
    if version not in (b"", _VERSION):
        raise WrongInput("connect-protocol-version is not 1; send 1, or leave it out")
    timeout = header(scope, b"connect-timeout-ms")
    if not timeout:
        return None
    if not (timeout.isdigit() and len(timeout) <= _MOST_DIGITS):
        raise WrongInput("connect-timeout-ms is no number of up to ten digits")
    return time.monotonic() + int(timeout) / 1e3
