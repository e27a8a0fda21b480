"""GET /openapi.json: one document of what each protocol says of its own paths."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import service
from service.asgi.events import Receive, Scope, Send

PATH = "/openapi.json"
_VERSION = "3.1.1"
_TITLE = "Unroll"


@runtime_checkable
class Described(Protocol):
    """A protocol that says what its paths are."""

    def openapi(self) -> dict[str, Any]:
        """Its part of the document: ``paths``, and ``components`` by kind."""


class OpenApiProtocol:
    """parts: of the document.

    Raises ValueError for two parts that describe one thing otherwise.
    """

    def __init__(self, parts: Iterable[dict[str, Any]]) -> None:
        self._document = json.dumps(merged(parts), separators=(",", ":")).encode()

    def speaks(self, scope: Scope) -> bool:
        return bool(scope["path"] == PATH and scope["method"] in ("GET", "HEAD"))

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = self._document
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sent = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": sent})


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Raises ValueError."""
    paths: dict[str, Any] = {}
    components: dict[str, dict[str, Any]] = {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
    }
    for part in parts:
        for path, operations in part.get("paths", {}).items():
            _add(paths.setdefault(path, {}), operations, path)
        for kind, named in part.get("components", {}).items():
            _add(components.setdefault(kind, {}), named, kind)
    return {
        "openapi": _VERSION,
        "info": {"title": _TITLE, "version": service.__version__},
        # Of a service without tokens nobody needs one.
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": components,
    }


def _add(held: dict[str, Any], more: dict[str, Any], where: str) -> None:
    for name, value in more.items():
        if held.setdefault(name, value) != value:
            raise ValueError(f"{where} has two kinds of {name!r}; give one another name")
