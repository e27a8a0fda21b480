"""Open work of one engine by caller, and the limits on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from service.engine.requests import Sink
from service.engine.shares import Share

# Beyond the limit, and for all callers together, for those that hold less than their share of it.
_RESERVED_SHARE = 0.25
# A stream that was not read for so long gives up its place where there is no other.
UNREAD_SECONDS = 1.0
# Streams are looked through at most so often, however many requests are refused meanwhile.
_BETWEEN_LOOKS_SECONDS = 0.25


@dataclass(eq=False, slots=True)
class CallerWork:
    """What one caller has open. size: pieces, as the limit counts. cost: see Engine.cost()."""

    weight: float
    size: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a further request of one caller waits for: that caller's own work, at its share of
    the engine.

    size, cost: as CallerWork. others: pieces of the other callers. share: of the engine, that the
    caller has however much the others want.
    """

    caller: str
    size: int
    cost: float
    others: int
    share: float


@dataclass(eq=False, slots=True)
class _Piece:
    sink: Sink[Any]
    caller: str
    size: int
    cost: float


class OpenWork:
    """limit: pieces that may be open at once, running and waiting together.

    One caller alone may have them all. Where they are taken, a caller that holds less than its
    fair share of them is let in beyond, as far as the reserve goes.

    clock: in seconds, the one by which sinks note when they were read.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.size = 0
        self._clock = clock
        self._most = limit + int(limit * _RESERVED_SHARE)
        self._pieces: dict[Hashable, _Piece] = {}
        self._callers: dict[str, CallerWork] = {}
        self._weight = 0.0  # of all callers with open work
        self._looked = float("-inf")

    def open(self, work: Hashable, sink: Sink[Any], share: Share, size: int, cost: float) -> None:
        caller = self._callers.get(share.caller)
        if caller is None:
            caller = self._callers[share.caller] = CallerWork(share.weight)
            self._weight += share.weight
        caller.size += size
        caller.cost += cost
        self.size += size
        self._pieces[work] = _Piece(sink, share.caller, size, cost)

    def close(self, work: Hashable) -> None:
        piece = self._pieces.pop(work)
        caller = self._callers[piece.caller]
        caller.size -= piece.size
        caller.cost -= piece.cost
        self.size -= piece.size
        if not caller.size:
            del self._callers[piece.caller]
            self._weight = self._weight - caller.weight if self._callers else 0.0

    def has_room(self, size: int) -> bool:
        """Whether so many pieces are within the limit; any number is where none is open."""
        return not self.size or self.size + size <= self.limit

    def has_reserve(self, share: Share, size: int) -> bool:
        """Whether this caller holds less than its share, and is let in beyond the limit."""
        mine = self._of(share).size
        return mine + size <= self.fair_size(share) and self.size + size <= self._most

    def fair_size(self, share: Share) -> float:
        """Pieces of the limit that this caller may hold whatever the others do."""
        return self.limit * self._share(share)

    def ahead(self, share: Share) -> Ahead:
        mine = self._of(share)
        others = self.size - mine.size
        return Ahead(share.caller, mine.size, mine.cost, others, self._share(share))

    def unread(self) -> list[tuple[float, Sink[Any]]]:
        """Sinks that were not read for a while, and since when, the longest first; none if asked
        too often."""
        now = self._clock()
        if now - self._looked < _BETWEEN_LOOKS_SECONDS:
            return []
        self._looked = now
        sinks = (piece.sink for piece in self._pieces.values())
        since = [(sink.unread_since, sink) for sink in sinks]
        behind = [(at, sink) for at, sink in since if at is not None]
        behind.sort(key=lambda one: one[0])
        return [(at, sink) for at, sink in behind if now - at >= UNREAD_SECONDS]

    def _of(self, share: Share) -> CallerWork:
        return self._callers.get(share.caller) or CallerWork(share.weight)

    def _share(self, share: Share) -> float:
        is_new = share.caller not in self._callers
        return share.weight / (self._weight + share.weight * is_new)
