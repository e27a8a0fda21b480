"""Metrics and probes on the port of calls, for those who want one port for everything."""

from __future__ import annotations

from service.asgi.events import Receive, Scope, Send, header
from service.observability.pages import PATHS, Pages


class PagesProtocol:
    """See Pages for what there is."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def speaks(self, scope: Scope) -> bool:
        return scope["path"] in PATHS and scope["method"] == "GET"

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = header(scope, b"accept").decode("latin-1")
        page = await self._pages.page(scope["path"], accept)
        headers = [
            (b"content-type", page.content_type.encode()),
            (b"content-length", b"%d" % len(page.body)),
        ]
        start = {"type": "http.response.start", "status": page.status.value, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": page.body})
