"""gRPC-Web: gRPC whose trailers are the last frame of the body, in base64 where asked for.

grpc/grpc/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping

from google.protobuf.message import Message

from service.asgi.calls import CallServer
from service.asgi.events import DIRECT, Direct, Event, Receive, Scope, Send, header
from service.asgi.grpc import GrpcCall, GrpcHead
from service.asgi.request import ENCODINGS, Body
from service.engine.errors import NotOffered, WrongInput
from service.rpc.methods import Method
from service.rpc.status import Status, status_of

_BINARY, _TEXT = b"application/grpc-web", b"application/grpc-web-text"
_TRAILERS = b"\x80"


class GrpcWebCall(GrpcCall):
    """kind: the content type of the answer."""

    __slots__ = ("_kind",)

    protocol = "grpc-web"

    def __init__(
        self, head: GrpcHead, body: Body, send: Send, direct: Direct | None, kind: bytes
    ) -> None:
        self._kind = kind
        super().__init__(head, body, send, direct)

    async def _start(self) -> None:
        if not self._has_started:
            self._has_started = True
            await self._send(_start_of(self._kind))

    async def end(self, status: Status, message: Message | None = None) -> None:
        if message is not None:
            await self.write(message)
        await self._start()
        await self._send({"type": "http.response.body", "body": _trailers_of(self, status)})


class GrpcWebProtocol:
    """Calls of ``methods``, by path."""

    def __init__(self, methods: Mapping[str, Method], server: CallServer) -> None:
        self._methods = methods
        self._server = server

    def speaks(self, scope: Scope) -> bool:
        return header(scope, b"content-type").lower().startswith(_BINARY)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = header(scope, b"content-type").lower().partition(b";")[0].strip()
        if kind.startswith(_TEXT):
            receive, send = _from_text(receive), _to_text(send)
            scope = {**scope, "extensions": {}}  # nothing passes by ``send``
        answered = kind if kind.endswith(b"+proto") else kind + b"+proto"
        try:
            head = GrpcHead(scope, self._method(scope, kind))
        except (NotOffered, WrongInput) as error:
            await send(_start_of(answered))
            await send({"type": "http.response.body", "body": _end_of(status_of(error))})
            return
        body, direct = self._server.bodies.of(head.peer, receive), scope["extensions"].get(DIRECT)
        call = GrpcWebCall(head, body, send, direct, answered)
        await self._server.serve(head.method, call, head.size)

    def _method(self, scope: Scope, kind: bytes) -> Method:
        """Raises NotOffered or WrongInput."""
        if kind not in (_BINARY, _BINARY + b"+proto", _TEXT, _TEXT + b"+proto"):
            raise NotOffered(
                f"{kind.decode(errors='replace')[:80]} is not read; send "
                f"{_BINARY.decode()}+proto, or JSON by Connect"
            )
        if scope["method"] != "POST":
            raise WrongInput("gRPC-Web calls by POST alone")
        method = self._methods.get(scope["path"])
        if method is None:
            path = scope["path"][:200]
            raise NotOffered(f"there is no method {path}; ask reflection for those there are")
        return method


def _start_of(kind: bytes) -> Event:
    headers = [(b"content-type", kind), (b"grpc-accept-encoding", ENCODINGS)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _trailers_of(call: GrpcCall, status: Status) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % pair for pair in call.end_of(status))
    return _TRAILERS + len(lines).to_bytes(4) + lines


def _end_of(status: Status) -> bytes:
    call = GrpcWebCall.__new__(GrpcWebCall)
    call._trailers = []
    return _trailers_of(call, status)


def _to_text(send: Send) -> Send:
    """Each part in base64 by itself, so that what was sent can be read at once."""

    async def send_text(event: Event) -> None:
        if body := event.get("body"):
            event = {**event, "body": b64encode(body)}
        await send(event)

    return send_text


def _from_text(receive: Receive) -> Receive:
    """Base64 in parts, which end anywhere; there may be padding between them."""
    rest = b""

    async def receive_text() -> Event:
        nonlocal rest
        event = await receive()
        if event["type"] != "http.request":
            return event
        data = rest + event.get("body", b"").translate(None, b"\r\n")
        whole = len(data) - len(data) % 4
        rest = data[whole:]
        if rest and not event.get("more_body", False):
            raise WrongInput("the request's base64 ends within four characters; send it whole")
        return {**event, "body": _decoded(data[:whole])}

    return receive_text


def _decoded(data: bytes) -> bytes:
    """Raises WrongInput."""
    parts, start = [], 0
    try:
        while (pad := data.find(b"=", start)) >= 0:
            end = pad - pad % 4 + 4
            parts.append(b64decode(data[start:end], validate=True))
            start = end
        parts.append(b64decode(data[start:], validate=True))
    except ValueError as error:
        raise WrongInput(f"the request is not in base64 ({error})") from error
    return b"".join(parts)
