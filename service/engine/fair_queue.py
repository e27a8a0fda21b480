"""Weighted fair queueing of callers for rows, without a clock.

Rows are shared by weighted max-min fairness: a free row goes to the waiting caller that holds
the fewest for its weight. A row is taken from one caller for another only where the other
still holds no more than the first after that, so that nothing is taken back at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from service.engine.scheduler import ScheduledSequence

Stream = TypeVar("Stream", bound="ScheduledSequence")

# Steps that a stream keeps its row before it can be taken for a caller that holds less: a save
# and a restore cost about as much as a row of one step.
LEAST_RUN = 8
# Steps after which a row can also be taken where callers only change places, since there are
# more of them than rows.
TURN = 256
# Rows that are taken in one step, and for one caller that has not begun to use them.
_MOST_TAKEN = 32
_MOST_UNREAD = 16


@dataclass(eq=False, slots=True)
class CallerQueue(Generic[Stream]):
    """The streams of one caller.

    order: among callers, by their first stream. streams: all that are not gone. waiting: those
    that wait for a row. grouped: of these, the ones that take rows together. begun: those that
    have a row set aside. held: rows, the ones that are set aside among them.
    served: the last step in which it got or gave back a row, or came. Whoever has waited for
    longest since is first among equals: no newcomer passes one that lost its only row.
    prefill_seconds: what was read of its prompts, for its weight, estimated.
    """

    name: str
    weight: float
    order: int
    served: int
    streams: int = 0
    waiting: int = 0
    grouped: int = 0
    begun: int = 0
    held: int = 0
    prefill_seconds: float = 0.0
    _heap: list[tuple[int, bool, int, Stream]] = field(default_factory=list)

    def push(self, stream: Stream, order: int, is_new: bool) -> None:
        """Wait for a row: by priority, whoever has held one before new ones, then by order."""
        stream.order = order
        self.waiting += 1
        self.grouped += stream.group > 1
        heapq.heappush(self._heap, (-stream.share.priority, is_new, order, stream))

    def remove(self, stream: Stream) -> None:
        """It waits no longer; its place in the heap is dropped when it comes up."""
        stream.order = -1
        self.waiting -= 1
        self.grouped -= stream.group > 1
        if len(self._heap) > 2 * self.waiting + 8:
            self._heap = [entry for entry in self._heap if entry[3].order == entry[2]]
            heapq.heapify(self._heap)

    @property
    def first(self) -> Stream:
        """The stream whose turn it is; one must wait."""
        while self._heap[0][3].order != self._heap[0][2]:
            heapq.heappop(self._heap)
        return self._heap[0][3]

    def all_waiting(self) -> list[Stream]:
        return [stream for _, _, order, stream in self._heap if stream.order == order]

    def level(self, more: int) -> float:
        """Rows for its weight, with so many more of them."""
        return (self.held + more) / self.weight


QueueTurn = tuple[float, int, int, CallerQueue[Stream]]


def turn_of(caller: CallerQueue[Stream], taken: int = 0) -> QueueTurn[Stream]:
    """What the next row is decided by, the least first; ties go to whoever waits longest.

    taken: rows that it is to get already.
    """
    return caller.level(taken + 1), caller.served, caller.order, caller


@dataclass(eq=False)
class Exchange(Generic[Stream]):
    """Which running streams give their rows to callers that hold less.

    callers: those with waiting streams. free: rows that nobody holds. now: in steps.
    """

    callers: Iterable[CallerQueue[Stream]]
    rows: Sequence[Stream]
    begun: Iterable[Stream]
    free: int
    now: int

    def __post_init__(self) -> None:
        self._taken: dict[CallerQueue[Stream], int] = {}
        self._victims: dict[CallerQueue[Stream], list[Stream]] = {}
        self.chosen: list[Stream] = []

    def choose(self) -> list[Stream]:
        """Running streams, and begun ones whose prompts are not read."""
        takers = [turn_of(caller) for caller in self.callers]
        heapq.heapify(takers)
        self._victims = self._candidates()
        while takers and len(self.chosen) < _MOST_TAKEN:
            caller = takers[0][3]
            more = caller.first.group
            if not self._serve(caller, more):
                if more == 1:
                    break  # whoever comes later holds no less
                heapq.heappop(takers)
                continue
            taken = self._taken[caller]
            is_done = caller.grouped or taken == caller.waiting
            if is_done or taken + caller.begun >= _MOST_UNREAD:
                heapq.heappop(takers)
            else:
                heapq.heapreplace(takers, turn_of(caller, taken))
        return self.chosen

    def _candidates(self) -> dict[CallerQueue[Stream], list[Stream]]:
        """Of each caller the streams that may lose their rows, the best to take last."""
        of: dict[CallerQueue[Stream], list[Stream]] = {}
        for stream in self.rows:
            if stream.group == 1 and self.now - stream.since >= LEAST_RUN:
                of.setdefault(stream.queue, []).append(stream)
        for streams in of.values():
            # Each in its turn, so that no stream is taken again and again.
            streams.sort(key=lambda stream: (-stream.share.priority, -stream.since))
        for stream in self.begun:
            # What was read of its prompt is kept, so this one loses nothing.
            if stream.group == 1 and stream.saved is None and stream.prompt.left:
                of.setdefault(stream.queue, []).append(stream)
        return of

    def _serve(self, caller: CallerQueue[Stream], more: int) -> bool:
        """Whether ``more`` rows are there for it, free ones first; takes all of them or none."""
        before = len(self.chosen)
        lost: list[CallerQueue[Stream]] = []
        free = min(self.free, more)
        for _ in range(more - free):
            loser = self._loser(caller, more)
            if loser is None:
                self._undo(before, lost)
                return False
            self.chosen.append(self._victims[loser].pop())
            self._taken[loser] = self._taken.get(loser, 0) - 1
            lost.append(loser)
        self.free -= free
        self._taken[caller] = self._taken.get(caller, 0) + more
        return True

    def _undo(self, before: int, lost: Sequence[CallerQueue[Stream]]) -> None:
        for loser, stream in zip(reversed(lost), reversed(self.chosen[before:]), strict=True):
            self._victims[loser].append(stream)
            self._taken[loser] += 1
        del self.chosen[before:]

    def _loser(self, taker: CallerQueue[Stream], more: int) -> CallerQueue[Stream] | None:
        """The caller that holds most for its weight, if it holds enough more than ``taker``."""
        held = self._taken
        others = [c for c, streams in self._victims.items() if streams and c is not taker]
        if not others:
            return None
        loser = max(others, key=lambda caller: caller.level(held.get(caller, 0)))
        mine = held.get(taker, 0)
        if taker.level(mine + more) <= loser.level(held.get(loser, 0) - 1):
            return loser
        # Otherwise they change places, once the other has had its turn: it has something.
        has_none = taker.held + mine == 0
        had_its_turn = self.now - self._victims[loser][-1].since >= TURN
        is_no_poorer = taker.level(1) <= loser.level(held.get(loser, 0))
        return loser if has_none and had_its_turn and is_no_poorer else None
