"""Connect: methods by path, with JSON or protobuf, and curl for those with one answer.

https://connectrpc.com/docs/protocol
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from service.access.codes import Code
from service.asgi.calls import CallServer
from service.asgi.events import Receive, Scope, Send, header, peer_of
from service.asgi.metadata import header_bytes
from service.connect.calls import (
    JSON,
    StreamCall,
    UnaryCall,
    answer_whole,
    encoding_of,
    end_stream,
    uncompressed,
)
from service.connect.codecs import Codec, JsonCodec, ProtoCodec
from service.connect.errors import error_json
from service.connect.schema import document_of
from service.engine.errors import WrongInput
from service.rpc.methods import Method
from service.rpc.status import Status, status_of

_UNARY, _STREAM = b"application/", b"application/connect+"
# Of a request's target, which no limit of bodies bounds.
_MOST_PARAMETERS = 16


class ConnectProtocol:
    """Calls of ``methods``."""

    def __init__(self, methods: Mapping[str, Method], server: CallServer) -> None:
        self._methods = methods
        self._server = server
        codecs: tuple[Codec, ...] = (JsonCodec(server.pipeline.admission.budget), ProtoCodec())
        self._codecs = {codec.name.encode(): codec for codec in codecs}

    def speaks(self, scope: Scope) -> bool:
        return scope["path"] in self._methods or header(scope, b"content-type").startswith(_STREAM)

    def openapi(self) -> dict[str, Any]:
        return document_of(self._methods.values())

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = self._methods.get(scope["path"])
        if method is None:
            await _refuse_unknown(scope, send)
            return
        try:
            call = await self._call(scope, receive, send, method)
        except WrongInput as error:
            status = status_of(error)
            if method.reads_several or method.writes_several:
                await end_stream(send, b"json", status)
            else:
                await answer_whole(send, 400, JSON, error_json(status))
            return
        if call is not None:
            await self._server.serve(method, call, header_bytes(scope["headers"]))

    async def _call(
        self, scope: Scope, receive: Receive, send: Send, method: Method
    ) -> UnaryCall | StreamCall | None:
        """None where it has been answered. Raises WrongInput."""
        is_stream = method.reads_several or method.writes_several
        if scope["method"] == "GET" and method.is_safe:
            codec, body = self._in_target(scope)
            return UnaryCall(scope, method, send, codec, body)
        if scope["method"] != "POST":
            allowed = b"GET, POST" if method.is_safe else b"POST"
            error = Status(Code.UNIMPLEMENTED, "send POST, with the request as the body")
            await answer_whole(send, 405, JSON, error_json(error), [(b"allow", allowed)])
            return None
        found = self._codec_of(header(scope, b"content-type"), _STREAM if is_stream else _UNARY)
        if found is None:
            await _refuse_type(send, is_stream, method)
            return None
        whole = self._server.bodies.of(peer_of(scope), receive)
        if is_stream:
            return StreamCall(scope, method, send, found, whole)
        encoding = encoding_of(header(scope, b"content-encoding"))

        async def read() -> bytes:
            most = self._server.settings.max_message_bytes
            return uncompressed(await whole.whole(), encoding, most)

        return UnaryCall(scope, method, send, found, read)

    def _codec_of(self, content_type: bytes, prefix: bytes) -> Codec | None:
        """None for what is not read here."""
        kind, _, parameters = content_type.lower().partition(b";")
        charset = parameters.replace(b" ", b"").replace(b'"', b"")
        if not kind.startswith(prefix) or charset not in (b"", b"charset=utf-8"):
            return None
        return self._codecs.get(kind.strip().removeprefix(prefix))

    def _in_target(self, scope: Scope) -> tuple[Codec, Callable[[], Awaitable[bytes]]]:
        """What a GET asks with. Raises WrongInput."""
        asked = _parameters(scope["query_string"])
        codec = self._codecs.get(asked.get("encoding", "").encode())
        if codec is None:
            raise WrongInput("the parameter encoding is neither json nor proto; send one of them")
        message = asked.get("message", "").encode("latin-1", "replace")
        data = _from_base64(message) if asked.get("base64") == "1" else message
        encoding = encoding_of(asked.get("compression", "").encode())

        async def read() -> bytes:
            return uncompressed(data, encoding, self._server.settings.max_message_bytes)

        return codec, read


def _parameters(query: bytes) -> dict[str, str]:
    """As bytes, one a character. Raises WrongInput."""
    try:
        pairs = parse_qsl(
            query.decode("latin-1"),
            keep_blank_values=True,
            encoding="latin-1",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as error:
        raise WrongInput(f"the request's parameters cannot be read ({error})") from error
    asked = dict(pairs)
    if asked.get("connect", "v1") != "v1":
        raise WrongInput("the parameter connect is not v1; send v1, or leave it out")
    return asked


def _from_base64(message: bytes) -> bytes:
    try:
        return urlsafe_b64decode(message + b"=" * (-len(message) % 4))
    except binascii.Error as error:
        raise WrongInput(f"the parameter message is not in base64 ({error})") from error


async def _refuse_unknown(scope: Scope, send: Send) -> None:
    path = scope["path"][:200]
    message = f"there is no method {path}; ask reflection for those there are"
    await answer_whole(send, 404, JSON, error_json(Status(Code.UNIMPLEMENTED, message)))


async def _refuse_type(send: Send, is_stream: bool, method: Method) -> None:
    prefix = _STREAM if is_stream else _UNARY
    accepted = b", ".join(prefix + name for name in (b"json", b"proto"))
    message = f"{method.path} reads {accepted.decode()}, beside gRPC and gRPC-Web"
    error = error_json(Status(Code.UNIMPLEMENTED, message))
    await answer_whole(send, 415, JSON, error, [(b"accept-post", accepted)])
