"""The budget of bytes for callers' data in this process, by kind and caller.

What is small and bounded by counts (rows, queued prompts) is not charged; what a caller can make
large for little is: requests while they are answered, answers until they are read, states that
are kept between requests, words and frames that wait for their answers, models that are loaded
anew beside those that calls still use.
"""

from __future__ import annotations

from typing import Protocol, Self

from service.engine.errors import Overloaded
from service.engine.shares import SHARE

KINDS = ("requests", "answers", "sequences", "words", "models", "frames", "states", "prefixes")
REQUESTS, ANSWERS, SEQUENCES, WORDS, MODELS, FRAMES, STATES, PREFIXES = KINDS

RETRY_AFTER_SECONDS = 1.0
# A caller may hold at most so many times what is left: alone three quarters of all, beside
# others less, so that somebody new always finds room (Choudhury and Hahne 1998, "Dynamic Queue
# Length Thresholds for Shared-Memory Packet Switches").
_CALLER_FACTOR = 3


class Spare(Protocol):
    """What fills what callers leave, and gives way to them."""

    @property
    def used(self) -> int:
        """Bytes."""

    def shrink(self, limit: int) -> None:
        """Keep at most so many bytes now."""


class MemoryBudget:
    """limit: bytes. prefixes: a cache that takes of them what callers' data does not. For the event
    loop alone."""

    def __init__(self, limit: int, prefixes: Spare | None = None) -> None:
        self.limit = limit
        self._prefixes = prefixes
        self.used = 0
        self._used_by_kind = dict.fromkeys(KINDS, 0)
        self._used_by_caller: dict[str, int] = {}

    def used_of(self, kind: str) -> int:
        if kind == PREFIXES:
            return self._prefixes.used if self._prefixes else 0
        return self._used_by_kind[kind]

    def check(self, kind: str, size: int) -> None:
        """Raises Overloaded where ``size`` bytes more for the caller served now are too many."""
        held = self._used_by_caller.get(SHARE.get().caller, 0)
        left = self.limit - self.used
        if size <= left and held + size <= _CALLER_FACTOR * left:
            if self._prefixes is not None and self._prefixes.used > left - size:
                self._prefixes.shrink(left - size)
            return
        raise Overloaded(
            f"{kind} would take {size} bytes more; your calls hold {held} and all calls "
            f"{self.used} of the {self.limit} that there are for them; read what was answered, or "
            "try again later",
            RETRY_AFTER_SECONDS,
        )

    def reserve(self, kind: str, size: int) -> Reservation:
        """``size`` bytes for the caller served now; release them whatever happens, such as by
        ``with``.

        Raises Overloaded.
        """
        self.check(kind, size)
        reservation = Reservation(self, kind, SHARE.get().caller)
        reservation.change(size)
        return reservation

    def add(self, kind: str, caller: str, size: int) -> None:
        """Of a Reservation alone."""
        self.used += size
        self._used_by_kind[kind] += size
        used = self._used_by_caller.get(caller, 0) + size
        if used:
            self._used_by_caller[caller] = used
        else:
            self._used_by_caller.pop(caller, None)


class Reservation:
    """Bytes that somebody holds. release() may be called again."""

    __slots__ = ("_budget", "_caller", "_kind", "size")

    def __init__(self, budget: MemoryBudget, kind: str, caller: str) -> None:
        self._budget, self._kind, self._caller, self.size = budget, kind, caller, 0

    def change(self, difference: int) -> None:
        """So many bytes more, which were checked, or fewer."""
        self.size += difference
        self._budget.add(self._kind, self._caller, difference)

    def release(self) -> None:
        self.change(-self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
