"""Who runs when: a pure object without clock, thread or I/O, which reads no array.

A stream waits, is primed in chunks together with those that share its prompt, holds a row,
may pause and come back, and is gone. Rows are dense: a leaving stream's row is taken by the
last one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from service.engine.priming import PrimeCost
from service.engine.requests import State

NO_ROW = -1

# Tokens of each prompt: reading fewer at once costs more for each. What that takes beyond the
# time that there is, the next steps earn back.
_LEAST_CHUNK = 4
_LEAST_TOKENS = 8
# As many waiting as running streams make priming this much more urgent.
_URGENCY = 8.0


class Phase(enum.Enum):
    WAITING = "waiting"  # for a row to be set aside
    BEGUN = "begun"  # a row is set aside; its prompt is being primed
    RUNNING = "running"  # holds a row
    PAUSED = "paused"  # its reader is behind, or it has nothing to read; its state is kept
    RETURNING = "returning"  # waits for a row again
    GONE = "gone"


@dataclass(eq=False, slots=True)
class Prompt:
    """What primes one or more streams.

    tokens: ids to be read by the prime graph. state: after the ones read so far.
    unserved: streams that have not yet begun from it.
    """

    tokens: Sequence[int]
    unserved: int = 1
    primed: int = 0
    state: State | None = None

    @property
    def left(self) -> int:
        return len(self.tokens) - self.primed


@dataclass(eq=False, slots=True)
class Place:
    """A stream as the scheduler sees it. Streams of one ``gang`` take rows together or wait."""

    prompt: Prompt
    gang: int = 1
    phase: Phase = Phase.WAITING
    row: int = NO_ROW
    saved: State | None = None  # while paused


@dataclass(frozen=True)
class PrimeChunk:
    """The next ``count`` tokens of a prompt, to be read from its state so far."""

    prompt: Prompt
    count: int


@dataclass(frozen=True)
class PrimePolicy:
    """How priming is cut.

    whole: the prime graph reads a source in one piece, not in chunks as a prompt.
    chunk_tokens: the most of one prompt at once, which bounds how late a cancel is heard.
    rows: the most prompts that are read together.
    """

    whole: bool
    chunk_tokens: int = 256
    rows: int = 64


@dataclass(frozen=True)
class Plan:
    """What happens before and in the next decode step.

    begins: streams that leave the queue. prime: chunks to read. admits: streams that are
    primed once those chunks are read, or come back; they take rows and decode in this step.
    """

    begins: list[Any] = field(default_factory=list)
    prime: list[PrimeChunk] = field(default_factory=list)
    admits: list[Any] = field(default_factory=list)


class Scheduler:
    """capacity: rows. A stream whose prompt is being primed has a row set aside for it."""

    def __init__(self, capacity: int, policy: PrimePolicy) -> None:
        self.capacity = capacity
        self.policy = policy
        self.cost = PrimeCost()
        self.waiting: deque[Any] = deque()
        self.begun: list[Any] = []
        self.rows: list[Any] = []
        self.returning: deque[Any] = deque()
        self.paused: set[Any] = set()

    @property
    def free_rows(self) -> int:
        return self.capacity - len(self.rows) - len(self.begun)

    @property
    def is_idle(self) -> bool:
        """Nothing to do now; streams that pause need none."""
        return not (self.rows or self.begun or self.waiting or self.returning)

    @property
    def queue_length(self) -> int:
        return len(self.waiting) + len(self.returning)

    @property
    def urgency(self) -> float:
        """1 with nobody waiting, more the more streams wait for each that runs.

        A pause for priming costs those that run and serves those that wait.
        """
        waiting = len(self.waiting) + len(self.begun)
        return 1.0 + _URGENCY * waiting / max(1, len(self.rows))

    def arrive(self, stream: Any) -> None:
        self.waiting.append(stream)

    def park(self, stream: Any) -> None:
        """A new stream has nothing to read yet: it pauses from the start."""
        stream.phase = Phase.PAUSED
        self.paused.add(stream)

    def schedule(self, seconds: float) -> Plan:
        """Begin what there are rows for, and choose what to prime, oldest first.

        seconds: what priming may take, by this scheduler's own estimate, while streams run.
        """
        if not self.begun and not self.waiting and not self.returning:
            return _NOTHING
        self._come_back()
        begins = self._begin()
        prime = self._choose_chunks(seconds)
        read = {chunk.prompt: chunk.count for chunk in prime}
        done = [s for s in self.begun if s.prompt.left == read.get(s.prompt, 0)]
        return Plan(begins, prime, done)

    def _come_back(self) -> None:
        for _ in range(min(self.free_rows, len(self.returning))):
            stream = self.returning.popleft()
            stream.phase = Phase.BEGUN
            self.begun.append(stream)

    def _begin(self) -> list[Any]:
        begins: list[Any] = []
        while self.waiting and self.waiting[0].gang <= self.free_rows:
            for _ in range(self.waiting[0].gang):
                stream = self.waiting.popleft()
                stream.phase = Phase.BEGUN
                self.begun.append(stream)
                begins.append(stream)
        return begins

    def _choose_chunks(self, seconds: float) -> list[PrimeChunk]:
        """Prompts in order of arrival, cut so that together they take ``seconds`` at most.

        Without running streams nobody is held up, and there is no such limit.
        """
        unread = {s.prompt: s.prompt.left for s in self.begun if s.prompt.left}
        prompts = list(unread)[: self.policy.rows]
        if not prompts:
            return []
        if not self.rows:
            return self._cut(prompts, self.policy.chunk_tokens)
        if seconds <= 0:
            return []
        # Side by side: a few rows more cost little, and nobody waits behind a long prompt.
        count = len(prompts)
        while count > 1 and self.cost.seconds(count, _LEAST_CHUNK) > seconds:
            count -= 1
        length = int(seconds / self.cost.seconds(count, 1))
        least = max(_LEAST_CHUNK, _LEAST_TOKENS // count)
        return self._cut(prompts[:count], max(least, length))

    def _cut(self, prompts: Sequence[Prompt], length: int) -> list[PrimeChunk]:
        if self.policy.whole:
            return [PrimeChunk(prompt, prompt.left) for prompt in prompts]
        most = min(length, self.policy.chunk_tokens)
        return [PrimeChunk(prompt, min(most, prompt.left)) for prompt in prompts]

    def primed(self, chunk: PrimeChunk) -> None:
        """The chunk was read."""
        chunk.prompt.primed += chunk.count

    def admit(self, stream: Any) -> int:
        """Move a primed or returning stream into the next free row; returns that row."""
        self.begun.remove(stream)
        stream.phase = Phase.RUNNING
        stream.row = len(self.rows)
        self.rows.append(stream)
        return int(stream.row)

    def pause(self, stream: Any) -> tuple[int, int]:
        """Take a running stream out of the batch; returns rows as leave() does."""
        moved = self._vacate(stream)
        stream.phase = Phase.PAUSED
        self.paused.add(stream)
        return moved

    def resume(self, stream: Any) -> None:
        """A paused stream goes on as soon as there is a row, before any new one."""
        self.paused.remove(stream)
        stream.phase = Phase.RETURNING
        self.returning.append(stream)

    def leave(self, stream: Any) -> tuple[int, int] | None:
        """Take a stream out wherever it is.

        Returns (its row, the last row), which the stream of the last row takes over, or None
        for one that held no row.
        """
        phase, stream.phase = stream.phase, Phase.GONE
        stream.saved = None
        if phase is Phase.RUNNING:
            return self._vacate(stream)
        if phase is Phase.PAUSED:
            self.paused.remove(stream)
        elif phase is Phase.BEGUN:
            self.begun.remove(stream)
        elif phase is not Phase.GONE:
            (self.waiting if phase is Phase.WAITING else self.returning).remove(stream)
        return None

    def _vacate(self, stream: Any) -> tuple[int, int]:
        row, last = stream.row, len(self.rows) - 1
        self.rows[row] = self.rows[last]
        self.rows[row].row = row
        self.rows.pop()
        stream.row = NO_ROW
        return row, last

    def everyone(self) -> list[Any]:
        return [*self.waiting, *self.begun, *self.rows, *self.returning, *self.paused]


_NOTHING = Plan()
