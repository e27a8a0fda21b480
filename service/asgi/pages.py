"""Metrics and probes on the port of calls, for those who want one port for everything."""

from __future__ import annotations

import typing
from collections.abc import Collection
from http import HTTPStatus

from service.asgi.events import Receive, Scope, Send, header


class Page(typing.Protocol):
    @property
    def status(self) -> HTTPStatus: ...

    @property
    def body(self) -> bytes: ...

    @property
    def content_type(self) -> str: ...


class Pages(typing.Protocol):
    async def page(self, path: str, accept: str) -> Page:
        """accept: of the request's header, empty without one."""


class PagesProtocol:
    """paths: of the pages there are."""

    def __init__(self, pages: Pages, paths: Collection[str]) -> None:
        self._pages, self._paths = pages, paths

    def speaks(self, scope: Scope) -> bool:
        return scope["path"] in self._paths and scope["method"] == "GET"

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
