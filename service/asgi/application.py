"""One port, every protocol: which one a request speaks."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from service.asgi.calls import CallServer
from service.asgi.events import Receive, Scope, Send, header
from service.asgi.grpc import CONTENT_TYPE as GRPC
from service.asgi.grpc import GrpcProtocol
from service.front_end import FrontEndSettings
from service.services import Services


class Protocol(typing.Protocol):
    """One way to call over HTTP."""

    def speaks(self, scope: Scope) -> bool:
        """Whether a request is of this protocol, by its path, method and headers."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers it, whatever it is."""


_NOT_FOUND = b"there is nothing at this path\n"


class Application:
    """An ASGI application over the services.

    others: protocols beside gRPC, in the order in which they are asked.
    """

    def __init__(
        self, services: Services, settings: FrontEndSettings, others: Sequence[Protocol] = ()
    ) -> None:
        self._grpc = GrpcProtocol(services.methods, CallServer(services.pipeline, settings))
        self._others = tuple(others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        content_type = header(scope, b"content-type")
        if content_type == GRPC or content_type.startswith((GRPC + b"+proto", GRPC + b";")):
            await self._grpc(scope, receive, send)
            return
        for protocol in self._others:
            if protocol.speaks(scope):
                await protocol.serve(scope, receive, send)
                return
        await _answer_not_found(send)


async def _answer_not_found(send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(_NOT_FOUND)),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _NOT_FOUND})
