"""Cross-origin resource sharing: which pages' scripts may read answers.

https://fetch.spec.whatwg.org/#http-cors-protocol. Cookies play no part, so a page gets from here
what it could get without its visitor; a token is the script's own to send.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from service.asgi.events import Asgi, Event, Headers, Receive, Scope, Send, header

ANY = "*"
_METHODS = b"GET, POST, DELETE"
_SECONDS = b"7200"


class Origins:
    """allowed: such as https://example.org; ``*`` for all."""

    def __init__(self, allowed: Iterable[str]) -> None:
        allowed = frozenset(allowed)
        self._allowed = frozenset(origin.encode() for origin in allowed)
        self._allows_all = ANY in allowed

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def allow(self, origin: bytes) -> bool:
        return self._allows_all or origin in self._allowed

    def allow_page(self, scope: Scope) -> bool:
        """Whether a request is of no page, of one of this very server, or of one that may."""
        origin = header(scope, b"origin")
        if not origin or self.allow(origin):
            return True
        try:
            return urlsplit(origin).netloc == header(scope, b"host") != b""
        except ValueError:
            return False


class Cors:
    """``app``, whose answers pages of ``origins`` may read."""

    def __init__(self, app: Asgi, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin")
        if not origin:
            await self._app(scope, receive, send)
            return
        is_allowed = self._origins.allow(origin)
        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
            headers = _preflight(scope, origin) if is_allowed else []
            await send({"type": "http.response.start", "status": 204, "headers": headers + _VARY})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, _exposing(send, origin) if is_allowed else send)


_VARY = [(b"vary", b"origin")]


def _preflight(scope: Scope, origin: bytes) -> Headers:
    asked = header(scope, b"access-control-request-headers")
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", _SECONDS),
    ]


def _exposing(send: Send, origin: bytes) -> Send:
    added = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        *_VARY,
    ]

    async def send_exposed(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], *added]}
        await send(event)

    return send_exposed
