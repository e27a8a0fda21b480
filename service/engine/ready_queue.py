"""Whose turn it is: streams that have something to run now, in turn by caller."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from service.engine.shares import Share


class _Ready(Protocol):
    share: Share


Stream = TypeVar("Stream", bound=_Ready)


@dataclass(eq=False, slots=True)
class _Caller(Generic[Stream]):
    """served: turns it has had, divided by its weight."""

    served: float
    order: int
    streams: deque[Stream] = field(default_factory=deque)


class ReadyQueue(Generic[Stream]):
    """Where more is ready than a step takes, callers get turns by their weights, whatever the
    number of their streams; streams of one caller get theirs in the order in which they came.

    Start-time fair queueing (Goyal, Vin and Cheng 1996), of turns that cost the same.

    wants: whether a stream still has something to run; what was pushed and wants nothing any more
    is passed over.
    """

    def __init__(self, wants: Callable[[Stream], bool]) -> None:
        self._wants = wants
        self._callers: dict[str, _Caller[Stream]] = {}  # that have something ready
        self._now = 0.0  # as far as callers have been served
        self._order = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, stream: Stream) -> None:
        caller = self._callers.get(stream.share.caller)
        if caller is None:
            self._order += 1
            # Turns that it did not want are not made up for.
            caller = self._callers[stream.share.caller] = _Caller(self._now, self._order)
        caller.streams.append(stream)
        self._size += 1

    def take(self, most: int) -> list[Stream]:
        """At most so many, each once."""
        if self._size <= most:
            taken = [s for caller in self._callers.values() for s in caller.streams]
            self._callers.clear()
            self._size = 0
            self._now = 0.0
            return [stream for stream in taken if self._wants(stream)]
        return self._take_in_turn(most)

    def _take_in_turn(self, most: int) -> list[Stream]:
        taken: list[Stream] = []
        turns = [(c.served, c.order, name, c) for name, c in self._callers.items()]
        heapq.heapify(turns)
        while turns and len(taken) < most:
            served, order, name, caller = turns[0]
            stream = caller.streams.popleft()
            self._size -= 1
            if self._wants(stream):
                taken.append(stream)
                self._now = served
                caller.served += 1.0 / stream.share.weight
            if caller.streams:
                heapq.heapreplace(turns, (caller.served, order, name, caller))
            else:
                heapq.heappop(turns)
                del self._callers[name]
        return taken
