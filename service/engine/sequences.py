"""Sequences: requests that go on from each other's state, which is kept here between them.

A state is a value: a request that fails or is cancelled leaves its sequence as it was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.engine.errors import QueueFull, WrongInput
from service.engine.threads import RETRY_AFTER_SECONDS


class Version(Protocol):
    """One version of a model; a sequence stays with the one that it began on."""

    def take(self) -> None: ...

    def give(self) -> None: ...

    def when_withdrawn(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have it called when the model is unloaded; returns what takes that back."""


@dataclass(frozen=True)
class SequenceKey:
    """owner: whose end is the sequence's too, such as an open call; None for none.

    model: the name it was asked for by. number: as the caller chose it; 1 and "1" are two.
    """

    owner: Hashable
    model: str
    number: int | str


@dataclass(frozen=True)
class Flags:
    """Whether a request is the first and the last of its sequence."""

    start: bool = False
    end: bool = False


def _nothing() -> None:
    """There is nothing to take back."""


@dataclass(eq=False)
class Sequence:
    """state: what the last request left, None before the first one.

    forget: takes back what its version was asked to tell. users: requests that run or wait for
    their turn.
    """

    version: Any
    state: Any = None
    forget: Callable[[], None] = _nothing
    is_over: bool = False
    users: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    expiry: asyncio.TimerHandle | None = None


class Sequences:
    """most: sequences of one model at once. idle_seconds: without a request, then one ends.

    Used from the event loop alone.
    """

    def __init__(self, most: int, idle_seconds: float) -> None:
        self.most = most
        self.idle_seconds = idle_seconds
        self._open: dict[SequenceKey, Sequence] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def version_of(self, key: SequenceKey, flags: Flags) -> Any:
        """The version that a sequence under way began on; None for one that is to begin."""
        sequence = None if flags.start else self._open.get(key)
        return sequence.version if sequence else None

    @asynccontextmanager
    async def turn(
        self, key: SequenceKey, flags: Flags, version: Version
    ) -> AsyncIterator[Sequence]:
        """One request: those of one sequence take turns, in the order in which they came.

        The block sets ``state`` to what the next request goes on from; when it raises, it does
        not. version: for a sequence that begins.

        Raises WrongInput for a sequence that was not begun, QueueFull for one too many.
        """
        before = self._open.get(key)
        sequence = self._begin(key, version) if flags.start else self._find(key)
        self._hold(sequence)
        try:
            async with sequence.turn:
                if sequence.is_over:
                    raise _ended(key)
                yield sequence
                if flags.start and before:  # only now is the one before it no longer wanted
                    self._end(key, before)
                if flags.end:
                    self._end(key, sequence)
        except BaseException:
            if sequence.state is None:  # its first request came to nothing, so it did not begin
                self._end(key, sequence)
                if before and not before.is_over:
                    self._open.setdefault(key, before)
            raise
        finally:
            self._let_go(key, sequence)

    def end_of_owner(self, owner: Hashable) -> None:
        """End every sequence of ``owner``."""
        for key, sequence in list(self._open.items()):
            if key.owner is owner:
                self._end(key, sequence)

    def _begin(self, key: SequenceKey, version: Version) -> Sequence:
        if key not in self._open and self._counts[key.model] >= self.most:
            raise QueueFull(
                f"model {key.model!r} keeps {self.most} sequences and takes no more; end one, or "
                "try again later",
                RETRY_AFTER_SECONDS,
            )
        version.take()
        sequence = self._open[key] = Sequence(version)
        self._counts[key.model] += 1
        sequence.forget = version.when_withdrawn(lambda: self._end(key, sequence))
        return sequence

    def _find(self, key: SequenceKey) -> Sequence:
        if key not in self._open:
            raise _ended(key)
        return self._open[key]

    def _hold(self, sequence: Sequence) -> None:
        sequence.users += 1
        if sequence.expiry:
            sequence.expiry.cancel()
            sequence.expiry = None

    def _let_go(self, key: SequenceKey, sequence: Sequence) -> None:
        sequence.users -= 1
        if not (sequence.users or sequence.is_over):
            loop = asyncio.get_running_loop()
            sequence.expiry = loop.call_later(self.idle_seconds, self._end, key, sequence)

    def _end(self, key: SequenceKey, sequence: Sequence) -> None:
        """What it kept goes; whoever still waits for a turn is told."""
        if sequence.is_over:
            return
        sequence.is_over = True
        sequence.state = None
        if sequence.expiry:
            sequence.expiry.cancel()
        if self._open.get(key) is sequence:
            del self._open[key]
        self._counts[key.model] -= 1
        sequence.forget()
        sequence.version.give()


def _ended(key: SequenceKey) -> WrongInput:
    return WrongInput(
        f"sequence_id {key.number!r} of model {key.model!r} is not under way: it was not begun, "
        "has ended, or was idle for too long; send sequence_start with its first request"
    )
