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


# Of a server that can do without waiting: a Direct.
DIRECT = "http.response.direct"
# Of a server that knows equal heads of requests (method, path, headers, client): a dict that all
# requests with this one share, for what the application finds out about it.
NOTES = "http.request.notes"


class Direct(Protocol):
    """Responses without a task that waits."""

    def has_room(self) -> bool:
        """Whether send_now() may be called: the response has started, and is read."""

    def send_now(self, body: bytes) -> None:
        """A part of the response's body."""

    def read_through(self, take: Callable[[bytes], bool] | None) -> None:
        """From now on ``take`` is asked first for what comes of the request's body, as long as
        somebody waits for it in receive(); what it does not take is received. None ends that."""

    def answer_now(self, start: Event, body: bytes, trailers: Headers) -> bool:
        """All of a response that has not started; False, and nothing of it, where it must wait."""


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
