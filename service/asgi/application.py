"""One port, every protocol: which one a request speaks."""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Sequence

from service.asgi.calls import CallServer
from service.asgi.events import NOTES, Asgi, Receive, Scope, Send
from service.asgi.grpc import GrpcProtocol
from service.front_end import FrontEndSettings
from service.services import Services


class Protocol(typing.Protocol):
    """One way to call over HTTP."""

    def speaks(self, scope: Scope) -> bool:
        """Whether a request is of this protocol, by its head alone: path, method, headers."""

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
        grpc = GrpcProtocol(services.methods, CallServer(services.pipeline, settings))
        self._protocols = (grpc, *others)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._server_of(scope)(scope, receive, send)

    def _server_of(self, scope: Scope) -> Asgi:
        notes = scope["extensions"].get(NOTES)
        if notes is not None and Application in notes:
            known: Asgi = notes[Application]
            return known
        speaking = (protocol.serve for protocol in self._protocols if protocol.speaks(scope))
        found = next(speaking, _answer_not_found)
        if notes is not None:
            notes[Application] = found
        return found


async def _answer_not_found(_: Scope, __: Receive, send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(_NOT_FOUND)),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _NOT_FOUND})
