"""Who runs when: a pure object without clock, thread or I/O, which reads no array.

A stream waits, is primed in chunks, holds a row, and is gone. Rows are dense: a leaving
stream's row is taken by the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from service.engine.randomness import Uniforms
from service.engine.requests import Generation
from service.engine.stopping import StopMatcher

NO_ROW = -1


@dataclass(eq=False)
class Stream:
    """One request on its way through the engine.

    sink: whom the engine delivers events to; opaque here.
    """

    request: Generation
    sink: Any
    stops: StopMatcher
    primed: int = 0  # tokens of the request that the prime graph has read
    state: Mapping[str, NDArray[Any]] | None = None  # after priming, until a row is taken
    row: int = NO_ROW
    made: int = 0  # tokens drawn so far
    delivered: int = 0
    uniforms: Uniforms | None = None  # of the block of positions under way
    started: float = 0.0  # when priming began, set by the engine's clock
    first_token: float = 0.0  # when the first token was made, likewise
    is_gone: bool = False


@dataclass(frozen=True)
class PrimeChunk:
    """Tokens start … end-1 of a stream's request, to be read from its state so far."""

    stream: Stream
    start: int
    end: int


@dataclass(frozen=True)
class PrimePolicy:
    """How much is primed between two decode steps.

    whole: the prime graph reads a request in one piece (a source), not in chunks (a prompt).
    steps_last: the last token goes through the step graph, so it is not primed.
    chunk_tokens: the most that one stream's chunk holds.
    busy_tokens: the most that all chunks together hold while streams decode (padding
        counted); a whole source counts as well, but one is always taken.
    rows: the most chunks that run together.
    """

    whole: bool
    steps_last: bool
    chunk_tokens: int = 256
    busy_tokens: int = 512
    rows: int = 32

    def tokens_to_prime(self, stream: Stream) -> int:
        return len(stream.request.tokens) - (1 if self.steps_last else 0)


@dataclass(frozen=True)
class Plan:
    """What happens before and in the next decode step.

    begins: streams that leave the queue. prime: chunks to read. admits: streams that are
    primed once those chunks are read; they take rows and decode in this very step.
    """

    begins: list[Stream] = field(default_factory=list)
    prime: list[PrimeChunk] = field(default_factory=list)
    admits: list[Stream] = field(default_factory=list)


class Scheduler:
    """capacity: rows. A stream that is being primed has a row set aside for it."""

    def __init__(self, capacity: int, policy: PrimePolicy) -> None:
        self.capacity = capacity
        self.policy = policy
        self.waiting: deque[Stream] = deque()
        self.priming: list[Stream] = []
        self.rows: list[Stream] = []

    @property
    def free_rows(self) -> int:
        return self.capacity - len(self.rows) - len(self.priming)

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.priming or self.rows)

    def arrive(self, stream: Stream) -> None:
        self.waiting.append(stream)

    def schedule(self) -> Plan:
        """Begin what there are rows for, and choose the chunks to prime, oldest first."""
        begins = [self.waiting.popleft() for _ in range(min(self.free_rows, len(self.waiting)))]
        self.priming.extend(begins)
        prime = self._choose_chunks()
        done = {chunk.stream: chunk.end for chunk in prime}
        admits = [
            stream
            for stream in self.priming
            if done.get(stream, stream.primed) == self.policy.tokens_to_prime(stream)
        ]
        return Plan(begins, prime, admits)

    def _choose_chunks(self) -> list[PrimeChunk]:
        chunks: list[PrimeChunk] = []
        longest = 0
        for stream in self.priming:
            left = self.policy.tokens_to_prime(stream) - stream.primed
            if left == 0:
                continue
            length = left if self.policy.whole else min(left, self.policy.chunk_tokens)
            longest = max(longest, length)
            padded = longest * (len(chunks) + 1)
            too_much = self.rows and padded > self.policy.busy_tokens
            if len(chunks) == self.policy.rows or (chunks and too_much):
                break
            chunks.append(PrimeChunk(stream, stream.primed, stream.primed + length))
        return chunks

    def primed(self, chunk: PrimeChunk) -> None:
        """The chunk was read."""
        chunk.stream.primed = chunk.end

    def admit(self, stream: Stream) -> int:
        """Move a primed stream into the next free row; returns that row."""
        self.priming.remove(stream)
        stream.row = len(self.rows)
        self.rows.append(stream)
        return stream.row

    def leave(self, stream: Stream) -> tuple[int, int] | None:
        """Take a stream out wherever it is.

        Returns (its row, the last row), which the stream of the last row takes over, or None
        for one that held no row.
        """
        stream.is_gone = True
        stream.state = None
        if stream.row == NO_ROW:
            where = self.priming if stream in self.priming else self.waiting
            where.remove(stream)
            return None
        row, last = stream.row, len(self.rows) - 1
        self.rows[row] = self.rows[last]
        self.rows[row].row = row
        self.rows.pop()
        stream.row = NO_ROW
        return row, last

    def everyone(self) -> list[Stream]:
        return [*self.waiting, *self.priming, *self.rows]
