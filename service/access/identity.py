"""The caller of a request, and the guard that decides what it may call."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

# What a call brings beside its messages: headers, by lower-case name.
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Caller:
    """Whom a call is from. name: empty for callers without one. weight: of its share."""

    name: str = ""
    weight: float = 1.0


ANYONE = Caller()
# Of the request that is being served.
CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYONE)


class Guard(Protocol):
    """Knows who may call what."""

    def caller(self, method: str, metadata: Metadata) -> Caller:
        """Whose call of ``method`` (its name alone) this is. Raises RequestError's kinds."""


class AllowAll:
    """Lets everybody in."""

    def caller(self, method: str, metadata: Metadata) -> Caller:
        return ANYONE
