"""The queue of texts for batches: grouped by length, fair between callers."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from service.engine.shares import Share


class Leavable(Protocol):
    @property
    def is_gone(self) -> bool: ...


Job = TypeVar("Job", bound=Leavable)


@dataclass(eq=False, slots=True)
class Text(Generic[Job]):
    """One of a job's texts. order: of its arrival."""

    job: Job
    number: int
    length: int
    order: int
    is_taken: bool = False

    @property
    def waits(self) -> bool:
        return not (self.is_taken or self.job.is_gone)


class _Level(Generic[Job]):
    """Texts of one caller and priority, by arrival and by length.

    Those that are taken or gone are dropped when they come up, and all at once when they are
    more than the others.
    """

    def __init__(self) -> None:
        self._texts: deque[Text[Job]] = deque()
        self._of_length: dict[int, deque[Text[Job]]] = {}
        self._lengths: list[int] = []  # ascending

    def push(self, text: Text[Job]) -> None:
        self._texts.append(text)
        if text.length not in self._of_length:
            self._of_length[text.length] = deque()
            insort(self._lengths, text.length)
        self._of_length[text.length].append(text)

    def rebuilt(self) -> _Level[Job]:
        """Without what no longer waits."""
        level: _Level[Job] = _Level()
        for text in self.all():
            level.push(text)
        return level

    def all(self) -> Iterator[Text[Job]]:
        return (text for text in self._texts if text.waits)

    @property
    def oldest(self) -> Text[Job] | None:
        while self._texts and not self._texts[0].waits:
            self._texts.popleft()
        return self._texts[0] if self._texts else None

    def nearest(self, length: int) -> Text[Job] | None:
        """The one of the likest length, of several the oldest."""
        place = bisect_left(self._lengths, length)
        above = self._first_at(place)
        # What is dropped lies above: the lengths below keep their places.
        below = self._first_below(place)
        if above is None or below is None:
            return above or below
        farther = (above.length - length) - (length - below.length)
        if farther:
            return below if farther > 0 else above
        return min(above, below, key=lambda text: text.order)

    def _first_at(self, place: int) -> Text[Job] | None:
        while place < len(self._lengths):
            if text := self._first_of(place):
                return text
        return None

    def _first_below(self, place: int) -> Text[Job] | None:
        while place > 0:
            place -= 1
            if text := self._first_of(place):
                return text
        return None

    def _first_of(self, place: int) -> Text[Job] | None:
        """The oldest of the length at ``place``; without one, the length is dropped."""
        length = self._lengths[place]
        texts = self._of_length[length]
        while texts and not texts[0].waits:
            texts.popleft()
        if texts:
            return texts[0]
        del self._of_length[length], self._lengths[place]
        return None


@dataclass(eq=False)
class _Caller(Generic[Job]):
    """served: symbols of its texts that ran, for its weight."""

    name: str
    weight: float
    order: int
    served: float = 0.0
    levels: dict[int, _Level[Job]] = field(default_factory=dict)

    def by_priority(self) -> list[int]:
        return sorted(self.levels, reverse=True)

    def oldest(self) -> Text[Job] | None:
        """Of the highest priority."""
        for priority in self.by_priority():
            if text := self.levels[priority].oldest:
                return text
            del self.levels[priority]
        return None

    def nearest(self, length: int) -> Text[Job] | None:
        for priority in self.by_priority():
            if text := self.levels[priority].nearest(length):
                return text
        return None


class TextQueue(Generic[Job]):
    """Weighted fair queueing: the next text is of the caller of whose texts least ran so far."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller[Job]] = {}  # that have waiting texts, or had
        self._count = self._dropped = self._order = 0
        self._served = 0.0  # of the caller whose turn was last: where newcomers begin

    def __len__(self) -> int:
        return self._count

    def push(self, job: Job, number: int, length: int, share: Share) -> None:
        self._order += 1
        self._count += 1
        caller = self._callers.get(share.caller)
        if caller is None:
            caller = _Caller(share.caller, share.weight, self._order, self._served)
            self._callers[share.caller] = caller
        caller.weight = share.weight
        level = caller.levels.get(share.priority)
        if level is None:
            level = caller.levels[share.priority] = _Level()
        level.push(Text(job, number, length, self._order))

    def forget(self, job: Job, waiting: int) -> None:
        """``job`` is gone: so many texts of it wait no more."""
        self._count -= waiting
        self._drop(waiting)

    def _drop(self, count: int) -> None:
        self._dropped += count
        if self._dropped > 2 * self._count + 64:
            self._dropped = 0
            for caller in self._callers.values():
                caller.levels = {p: level.rebuilt() for p, level in caller.levels.items()}

    def everything(self) -> list[Text[Job]]:
        levels = (level for caller in self._callers.values() for level in caller.levels.values())
        return sorted((t for level in levels for t in level.all()), key=lambda text: text.order)

    def take(self, most: int, padding_limit: float) -> list[Text[Job]]:
        """A batch: the oldest text of the caller whose turn it is, and what is like it in length.

        padding_limit: padded symbols for each symbol of text; what would add more waits for a
        batch of its own kind. One text must wait.
        """
        turns = self._turns()
        self._served, _, first = turns[0]
        oldest = first.oldest()
        assert oldest is not None, "only callers with waiting texts have turns"
        taken: list[Text[Job]] = []
        longest = total = 0
        while turns and len(taken) < most:
            caller = turns[0][2]
            text = oldest if not taken else caller.nearest(oldest.length)
            if text is None:
                heapq.heappop(turns)
                continue
            longest, total = max(longest, text.length), total + text.length
            if longest * (len(taken) + 1) > padding_limit * total:
                heapq.heappop(turns)
                longest, total = max(t.length for t in taken), total - text.length
                continue
            text.is_taken = True
            taken.append(text)
            caller.served += max(1, text.length) / caller.weight
            heapq.heapreplace(turns, (caller.served, caller.order, caller))
        self._count -= len(taken)
        self._drop(len(taken))
        return taken

    def _turns(self) -> list[tuple[float, int, _Caller[Job]]]:
        """Callers with waiting texts; the others are forgotten."""
        for caller in list(self._callers.values()):
            if caller.oldest() is None:
                del self._callers[caller.name]
        turns = [(c.served, c.order, c) for c in self._callers.values()]
        heapq.heapify(turns)
        return turns
