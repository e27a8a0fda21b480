"""Requests under way: how many, of which caller, and whether more may come."""

from __future__ import annotations

import asyncio
from collections import Counter

from service.engine.errors import Overloaded, ServiceStopping

_RETRY_AFTER_SECONDS = 0.5


class InflightTracker:
    """Counts the requests under way and, once closed, lets no further one in.

    most_of_caller: requests that one caller may have under way.
    handing_over: set when those that are still under way are to go on elsewhere.
    """

    def __init__(self, most_of_caller: int) -> None:
        self.calls = 0
        self.most_of_caller = most_of_caller
        self._calls_of: Counter[str] = Counter()
        self.closed = asyncio.Event()
        self.handing_over = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def enter(self, caller: str) -> None:
        """Raises ServiceStopping when closed, Overloaded for a caller that has too many."""
        if self.is_closed:
            raise ServiceStopping("the server is stopping; send the request to another one")
        if self._calls_of[caller] >= self.most_of_caller:
            raise Overloaded(
                f"you have {self.most_of_caller} requests under way, and may have no more; wait "
                "for one to end",
                _RETRY_AFTER_SECONDS,
            )
        self._calls_of[caller] += 1
        self.calls += 1
        self._empty.clear()

    def leave(self, caller: str) -> None:
        self._calls_of[caller] -= 1
        if not self._calls_of[caller]:
            del self._calls_of[caller]
        self.calls -= 1
        if not self.calls:
            self._empty.set()

    async def wait_until_empty(self, seconds: float) -> bool:
        """Whether every call ended within ``seconds``."""
        if not self.calls:
            return True
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True
