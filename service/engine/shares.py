"""The scheduling share of a request: caller, weight, priority, deadline."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """What an engine knows of a caller.

    caller: its name where it has one, else its connection. weight: what it gets beside others,
    relative to 1. priority: of this request among the caller's own, the highest first.
    deadline: on the engines' clock in seconds; None where the caller waits for ever.
    """

    caller: str = ""
    weight: float = 1.0
    priority: int = 0
    deadline: float | None = None


NOBODY = Share()
# Of the request that is being served.
SHARE: ContextVar[Share] = ContextVar("share", default=NOBODY)
