"""The pages of metrics and probes, whatever serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

# A process that has just gone on after it was stopped has late beats: it gets a second to show
# that it lives.
_SECOND_LOOK_SECONDS = 1.0

# Why not; empty for all is well.
Probe = Callable[[], str]

PATHS = ("/metrics", "/livez", "/readyz")


@dataclass(frozen=True)
class Page:
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain"


class PageSource(Protocol):
    """Makes pages of metrics and probes."""

    async def page(self, path: str, accept: str) -> Page:
        """accept: of the request's header, empty without one."""


class PageServer(Protocol):
    """Shows them to whoever asks. port: where; 0 for whoever has no port of its own."""

    port: int

    def start(self) -> None: ...

    def stop(self) -> None: ...


async def _nothing() -> None:
    """The registry knows all by itself."""


class Pages:
    """``/metrics``, ``/livez`` (nothing stands still), ``/readyz`` (it takes requests).

    For one event loop, on whose thread why_dead and why_not_ready are asked. collect: has the
    registry learn what it does not know by itself, before each scrape.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        why_dead: Probe,
        why_not_ready: Probe,
        collect: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._registry = registry
        self._why_dead, self._why_not_ready = why_dead, why_not_ready
        self._collect = collect
        # One scrape at a time, so that probes come between two of them.
        self._scraping = asyncio.Lock()

    async def page(self, path: str, accept: str) -> Page:
        """accept: of the request's header, empty without one."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            async with self._scraping:
                await self._collect()
                return Page(HTTPStatus.OK, encode(self._registry), content_type)
        if path == "/livez":
            if self._why_dead():
                await asyncio.sleep(_SECOND_LOOK_SECONDS)
            return _verdict("alive", self._why_dead())
        if path == "/readyz":
            return _verdict("ready", self._why_not_ready())
        return Page(HTTPStatus.NOT_FOUND, f"try {', '.join(PATHS)}\n".encode())


def _verdict(good: str, why_not: str) -> Page:
    if why_not:
        return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"not {good}: {why_not}\n".encode())
    return Page(HTTPStatus.OK, f"{good}\n".encode())
