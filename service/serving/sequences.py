"""Sequences: requests that go on from each other's state, which is kept here between them.

A state is a value: a request that fails or is cancelled leaves its sequence as it was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from service.access.memory_budget import SEQUENCES, MemoryBudget, Reservation
from service.engine.errors import QueueFull, WrongInput
from service.serving.model_version import ServedVersion
from service.serving.worker import RETRY_AFTER_SECONDS

# Beside its state: its key, its lock, its timer.
_SEQUENCE_BYTES = 4096


@dataclass(frozen=True)
class SequenceKey:
    """owner: whose end is the sequence's too, such as an open call; None for none.

    model: the name it was asked for by. number: as the caller chose it; 1 and "1" are two.
    caller: whose it is, as far as it is known; nobody reaches another one's.
    """

    owner: Hashable
    model: str
    number: int | str
    caller: str = ""


@dataclass(frozen=True)
class Flags:
    """Whether a request is the first and the last of its sequence."""

    start: bool = False
    end: bool = False


@dataclass
class SequenceLease:
    """state: what the request goes on from, None for a first one; then what it leaves."""

    state: Any


def _nothing() -> None:
    """There is nothing to take back."""


@dataclass(eq=False)
class _Sequence:
    """name: of its model.

    state: what the last request left, None for nothing. version: whose state that is.
    heading: the version that requests which come now are for. forget: undoes when_withdrawn() of
    the version. held: of the budget. users: requests that have a turn or wait for one.
    """

    name: str
    state: Any = None
    version: ServedVersion | None = None
    heading: ServedVersion | None = None
    forget: Callable[[], None] = _nothing
    held: Reservation | None = None
    users: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    expiry: asyncio.TimerHandle | None = None


class Sequences:
    """most: sequences of one model at once. idle_seconds: without a request, then one ends.
    budget: of the bytes that their states take. advice: what else a request may lack whose
    sequence is not here; added to its refusal.

    Used from the event loop alone.
    """

    def __init__(
        self, most: int, idle_seconds: float, budget: MemoryBudget, advice: str = ""
    ) -> None:
        self.most = most
        self.idle_seconds = idle_seconds
        self.budget = budget
        self.advice = advice
        self._open: dict[SequenceKey, _Sequence] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def version_of(self, key: SequenceKey, flags: Flags) -> ServedVersion | None:
        """The version that the sequence under way began on; None for one that is to begin."""
        sequence = None if flags.start else self._open.get(key)
        return sequence.heading if sequence else None

    @asynccontextmanager
    async def turn(
        self, key: SequenceKey, flags: Flags, version: ServedVersion
    ) -> AsyncIterator[SequenceLease]:
        """One request: those of one sequence take turns, in the order in which they came.

        The block sets ``state``; when it raises, the sequence stays as it was before it.
        version: what the request is for, as version_of() says or, for a first one, any.

        Raises WrongInput for a sequence that was not begun, QueueFull for one too many, Overloaded
        for one whose state finds no room.
        """
        sequence = self._expected(key, flags, version)
        sequence.users += 1
        self._stop_waiting(sequence)
        try:
            async with sequence.turn:
                turn = SequenceLease(
                    None if flags.start else self._state_for(sequence, key, version)
                )
                yield turn
                self._keep(key, sequence, version, None if flags.end else turn.state)
        finally:
            sequence.users -= 1
            if not sequence.users:
                self._rest(key, sequence)

    def end_of_owner(self, owner: Hashable) -> None:
        """End every sequence of ``owner``, none of which has a request under way."""
        for key, sequence in list(self._open.items()):
            if key.owner is owner:
                self._end(key, sequence)

    def _expected(self, key: SequenceKey, flags: Flags, version: ServedVersion) -> _Sequence:
        """The one that a request of ``key`` belongs to; a first request may make it."""
        sequence = self._open.get(key)
        if not flags.start:
            if sequence is None:
                raise self._not_under_way(key)
            return sequence
        if sequence is None:
            if self._counts[version.name] >= self.most:
                raise QueueFull(
                    f"model {version.name!r} keeps {self.most} sequences and takes no more; end "
                    "one, or try again later",
                    RETRY_AFTER_SECONDS,
                )
            size = version.state_bytes + _SEQUENCE_BYTES
            held = self.budget.reserve(SEQUENCES, size)
            sequence = self._open[key] = _Sequence(version.name, held=held)
            self._counts[version.name] += 1
        sequence.heading = version
        return sequence

    def _keep(
        self, key: SequenceKey, sequence: _Sequence, version: ServedVersion, state: Any
    ) -> None:
        """state: None to keep nothing."""
        if state is None or sequence.version is not version:
            self._let_go(sequence)
        if state is not None and sequence.version is None:
            version.take()
            sequence.version = version
            sequence.forget = version.when_withdrawn(lambda: self._end(key, sequence))
        sequence.state = state

    def _let_go(self, sequence: _Sequence) -> None:
        """Of its state, and of the version that it was of."""
        version, sequence.version, sequence.state = sequence.version, None, None
        if version is not None:
            sequence.forget()
            version.give()

    def _rest(self, key: SequenceKey, sequence: _Sequence) -> None:
        """No request is under way: wait for the next one, if there is something to go on from."""
        if self._open.get(key) is not sequence or sequence.state is None:
            self._end(key, sequence)
            return
        sequence.heading = sequence.version
        loop = asyncio.get_running_loop()
        sequence.expiry = loop.call_later(self.idle_seconds, self._end, key, sequence)

    def _stop_waiting(self, sequence: _Sequence) -> None:
        if sequence.expiry:
            sequence.expiry.cancel()
            sequence.expiry = None

    def _end(self, key: SequenceKey, sequence: _Sequence) -> None:
        """No further request belongs to it; those that do have their turns yet."""
        if self._open.get(key) is sequence:
            del self._open[key]
            self._counts[sequence.name] -= 1
        if not sequence.users:
            self._stop_waiting(sequence)
            self._let_go(sequence)
            if sequence.held:
                sequence.held.release()

    def _state_for(self, sequence: _Sequence, key: SequenceKey, version: ServedVersion) -> Any:
        if sequence.state is None:
            raise self._not_under_way(key)
        if sequence.version is not version:  # a start, of another version, came between and failed
            raise WrongInput(
                f"sequence_id {key.number!r} is of another version; send the request again"
            )
        return sequence.state

    def _not_under_way(self, key: SequenceKey) -> WrongInput:
        return WrongInput(
            f"sequence_id {key.number!r} of model {key.model!r} is not under way: it was not "
            "begun, has ended, or was idle for too long; send sequence_start with its first "
            f"request{self.advice}"
        )
