"""Calls over WebSocket, one a socket: for pages, which cannot send while they read by fetch.

The path is the method's, each message a frame: text is JSON (subprotocol unroll.json, or none),
binary is protobuf (unroll.proto). An empty text ends the requests. A call that fails ends with a
text ``{"error": …}`` as Connect has it; the close code of any call is 1000 for OK, or 4000 and its
status's number, with the message as the reason.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import urlsafe_b64decode
from collections.abc import Mapping

from google.protobuf.message import Message

from service.asgi.calls import CallServer
from service.asgi.cors import Origins
from service.asgi.events import Receive, Scope, Send, header
from service.asgi.metadata import header_bytes
from service.asgi.websocket import (
    NORMAL_CLOSE,
    VERSION,
    Closed,
    WebSocket,
    is_upgrade,
    protocols_of,
)
from service.connect.calls import JSON, ConnectCall, answer_whole
from service.connect.codecs import Codec, JsonCodec, ProtoCodec
from service.connect.errors import dumped, error_json, error_of
from service.engine.errors import PermissionDenied, RequestError, WrongInput
from service.rpc.methods import Method
from service.rpc.status import OK, Status, status_of

_PREFIX = "unroll."
# A bearer token in base64url, for pages, which can set no header.
_TOKEN = "unroll.bearer."
_CLOSE_CODES = 4000
# For the other side's close, once this one has.
_CLOSE_SECONDS = 1.0


class WebSocketCall(ConnectCall):
    """A ServerCall over ``socket``, which was accepted.

    Nothing is read before a request is asked for; from then on frames are, so that pings are
    answered and a close ends the call while it writes.
    """

    protocol = "websocket"

    def __init__(
        self, scope: Scope, method: Method, send: Send, codec: Codec, socket: WebSocket
    ) -> None:
        super().__init__(scope, method, send, codec)
        self._socket = socket
        # One that waits, and in the end None or why there is no other.
        self._requests: asyncio.Queue[str | bytes | RequestError | None] = asyncio.Queue(1)
        self._takes_more = True
        self._reading: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()
        self._has_ended = False

    async def read(self) -> bytes | None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_on())
        message = await self._requests.get()
        if message is None:
            return None
        if isinstance(message, RequestError):
            raise message
        if isinstance(message, str) != self._codec.is_text:
            raise WrongInput("send texts for unroll.json, and binary messages for unroll.proto")
        data = message.encode() if isinstance(message, str) else message
        return await self._codec.read(data, self._type)

    async def _read_on(self) -> None:
        try:
            await self._read_messages()
            await self._socket.discard()
        except Closed:
            if self._task is not None and not self._has_ended:
                self._task.cancel()

    async def _read_messages(self) -> None:
        """Until one that cannot be read. Raises Closed."""
        try:
            while True:
                message = await self._socket.next()
                if self._takes_more:
                    self._takes_more = message != ""
                    await self._requests.put(message if self._takes_more else None)
        except RequestError as error:
            await self._requests.put(error)

    async def request(self) -> bytes:
        message = await self.read()
        self._takes_more = False
        if message is None:
            raise WrongInput("the call has no request; send one")
        return message

    async def write(self, message: Message) -> None:
        await self._socket.send(await self._codec.write(message), self._codec.is_text)

    async def send_headers(self) -> None:
        """The handshake was answered."""

    async def end(self, status: Status, message: Message | None = None) -> None:
        if message is not None:
            try:
                await self.write(message)
            except RequestError as error:
                status = status_of(error)
        self._has_ended, self._takes_more = True, False
        if status is OK:
            await self._socket.close(NORMAL_CLOSE, "")
            return
        await self._socket.send(dumped({"error": error_of(status)}), is_text=True)
        await self._socket.close(_CLOSE_CODES + status.code, status.message)

    async def wait_closed(self) -> None:
        """Until the other side has closed too, or has not in time."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_on())
        await asyncio.wait((self._reading,), timeout=_CLOSE_SECONDS)

    def stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


class WebSocketProtocol:
    """Calls of ``methods``, by path. origins: of pages that may open sockets."""

    def __init__(self, methods: Mapping[str, Method], server: CallServer, origins: Origins) -> None:
        self._methods = methods
        self._server = server
        self._origins = origins
        codecs: tuple[Codec, ...] = (JsonCodec(server.pipeline.admission.budget), ProtoCodec())
        self._codecs = {_PREFIX + codec.name: codec for codec in codecs}

    def speaks(self, scope: Scope) -> bool:
        return is_upgrade(scope) and scope["path"] in self._methods

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._server.settings
        method = self._methods[scope["path"]]
        socket = WebSocket(receive, send, settings.max_message_bytes, settings.body_seconds)
        try:
            name, scope = self._chosen(scope)
            codec = self._codecs[name or _PREFIX + JsonCodec.name]
            call = WebSocketCall(scope, method, send, codec, socket)
            await socket.accept(scope, name)
        except (WrongInput, PermissionDenied) as error:
            await _refuse(send, error)
            return
        try:
            await self._server.serve(method, call, header_bytes(scope["headers"]))
            await call.wait_closed()
        finally:
            call.stop_reading()

    def _chosen(self, scope: Scope) -> tuple[str, Scope]:
        """The subprotocol, empty where none is offered, and the scope with what tokens say.

        Raises WrongInput or PermissionDenied.
        """
        if header(scope, b"sec-websocket-version") != VERSION:
            raise WrongInput("sec-websocket-version is not 13")
        if not self._origins.allow_page(scope):
            raise PermissionDenied("pages of this origin may not call; cors_origins says which may")
        offered = protocols_of(scope)
        if tokens := [name for name in offered if name.startswith(_TOKEN)]:
            said = (b"authorization", b"Bearer " + _token_of(tokens[0]))
            scope = {**scope, "headers": [*scope["headers"], said]}
        names = [name for name in offered if not name.startswith(_TOKEN)]
        chosen = next((name for name in names if name in self._codecs), "")
        if names and not chosen:
            raise WrongInput(f"no subprotocol is spoken here; offer {' or '.join(self._codecs)}")
        return chosen, scope


def _token_of(name: str) -> bytes:
    """Raises WrongInput."""
    text = name.removeprefix(_TOKEN).encode()
    try:
        return urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error as error:
        raise WrongInput(f"the subprotocol {_TOKEN}… is not in base64url ({error})") from error


async def _refuse(send: Send, error: WrongInput | PermissionDenied) -> None:
    """Before there is a socket."""
    code = 403 if isinstance(error, PermissionDenied) else 400
    headers = [(b"sec-websocket-version", VERSION)]
    await answer_whole(send, code, JSON, error_json(status_of(error)), headers)
