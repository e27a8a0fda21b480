"""The types of ASGI 3.0."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

Scope = dict[str, Any]
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


# Of a server that can say whether it has room: an object with has_room() and send_now(body), which
# sends a part of the response's body where there is.
DIRECT = "http.response.direct"


class Direct(Protocol):
    def has_room(self) -> bool: ...

    def send_now(self, body: bytes) -> None: ...


def header(scope: Scope, name: bytes) -> bytes:
    """The first of that name, in lower case; empty without one."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return b""


def peer_of(scope: Scope) -> str:
    """The address of the call's connection, as grpc writes it."""
    if not scope.get("client"):
        return "unknown"
    host, port = scope["client"]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
