"""The scheduler: a pure object without clock, thread or I/O, which reads no array.

A stream waits, is prefilled in chunks together with those that share its prompt, holds a row,
may pause and come back, and is gone. Rows are dense: a leaving stream's row is taken by the
last one. Rows and prefill are shared between callers; a stream may lose its row to a caller
that holds fewer, keeps its state, and returns.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Generic, Never, Self, TypeVar

from numpy.typing import NDArray

from service.engine.fair_queue import TURN, CallerQueue, Exchange, turn_of
from service.engine.prefill import PrefillCost
from service.engine.prefixes import PrefixLookup
from service.engine.requests import State
from service.engine.shares import NOBODY, Share

NO_ROW = -1

# Tokens of one prompt that are read where there is time for none. What that takes beyond the time
# that there is, the next steps earn back.
_LEAST_TOKENS = 8
# Beside others at least so many of each prompt: a run of the graph takes its time by itself.
_LEAST_LENGTH = 4
# Of the tokens that could be read in a pause, unless that is all: fewer prompts that have nearly as
# many are done sooner.
_ENOUGH = 0.9
_NO_TIME = 1e-9  # seconds: what a clock may say of a token
# As many waiting as running streams make prefill this much more urgent.
_URGENCY = 8.0
# Steps after which streams that take rows together are passed over no more: rows that come
# free are kept for them.
_OVERDUE = TURN
# While more streams wait than rows are free, rows come free one by one, and reading one prompt by
# itself costs up to five times as much as reading it among others. So prompts wait for one
# another: until this share of all rows is free, but no longer than for so many steps.
_READ_TOGETHER_SHARE, _READ_TOGETHER_STEPS = 1 / 12, 8
# Where nothing has changed, rows are looked at again after so many steps.
_SETTLED_STEPS = 8


class Phase(enum.Enum):
    WAITING = "waiting"  # for a row to be set aside
    BEGUN = "begun"  # a row is set aside; its prompt is being prefilled
    RUNNING = "running"  # holds a row
    PAUSED = "paused"  # its reader is behind, or it has nothing to read; its state is kept
    RETURNING = "returning"  # had a row and waits for one again
    GONE = "gone"


@dataclass(eq=False, slots=True)
class Prompt:
    """What prefills one or more streams.

    tokens: ids, or steps of a series, to be read by the prefill graph. state: after the ones read
    so far. unserved: streams that have not yet begun from it. cached: tokens that a prefix cache
    knew. lookup: what is to be kept in it; None for nothing. cut: a place, in tokens, where the
    state is wanted, so no chunk goes beyond it; 0 for none. is_begun: a chunk of it was read.
    """

    tokens: Sequence[Any] | NDArray[Any]
    unserved: int = 1
    prefilled: int = 0
    state: State | None = None
    cached: int = 0
    lookup: PrefixLookup | None = None
    cut: int = 0
    is_begun: bool = False

    @property
    def left(self) -> int:
        return len(self.tokens) - self.prefilled

    @property
    def ahead(self) -> int:
        """Tokens that one chunk may hold."""
        return (self.cut if self.cut > self.prefilled else len(self.tokens)) - self.prefilled


@dataclass(eq=False, slots=True)
class ScheduledSequence:
    """A stream as the scheduler sees it. Streams of one ``group`` take rows together or wait.

    The scheduler alone writes the rest. order: among those that wait; -1 for one that does not.
    since: the step in which it got its row.
    """

    prompt: Prompt
    group: int = 1
    phase: Phase = Phase.WAITING
    row: int = NO_ROW
    saved: State | None = None  # while paused
    share: Share = NOBODY
    queue: CallerQueue[Self] = field(init=False, repr=False)
    order: int = -1
    since: int = 0


Stream = TypeVar("Stream", bound=ScheduledSequence)


@dataclass(frozen=True)
class PrefillChunk:
    """The next ``count`` tokens of a prompt, to be read from its state so far."""

    prompt: Prompt
    count: int


@dataclass(frozen=True)
class PrefillPolicy:
    """How prefill is cut.

    whole: the prefill graph reads a source in one piece, not in chunks as a prompt.
    chunk_tokens: the most of one prompt at once.
    rows: the most prompts that are read together.
    idle_seconds: what reading takes at once while no stream runs, by estimate: so long a stream
        that arrives meanwhile waits at most, and so late a cancel is noticed.
    """

    whole: bool
    chunk_tokens: int = 256
    rows: int = 64
    idle_seconds: float = 0.05


@dataclass(frozen=True)
class Plan(Generic[Stream]):
    """What happens before and in the next decode step.

    begins: streams that leave the queue. prefill: chunks to read. admits: streams that are
    prefilled once those chunks are read, or come back; they take rows and decode in this step.
    """

    begins: list[Stream] = field(default_factory=list)
    prefill: list[PrefillChunk] = field(default_factory=list)
    admits: list[Stream] = field(default_factory=list)


class Scheduler(Generic[Stream]):
    """capacity: rows. A stream whose prompt is being prefilled has a row set aside for it.

    Before each step: begin_step(). Where it has_waiting: preemptions(), then preempt() for each
    of them; schedule(), then prefilled() and admit() for what it says.
    """

    def __init__(self, capacity: int, policy: PrefillPolicy) -> None:
        self.capacity = capacity
        self.policy = policy
        self.cost = PrefillCost()
        self.begun: dict[Stream, None] = {}
        self.rows: list[Stream] = []
        self.paused: set[Stream] = set()
        self.queue_length = 0  # streams that wait for a row, new ones and returning ones
        self._returning = 0
        self._callers: dict[str, CallerQueue[Stream]] = {}  # whose streams are not all gone
        self._waiting: dict[CallerQueue[Stream], None] = {}  # those of them with waiting streams
        self._order = 0  # of streams that wait, and of callers
        self._now = 0  # in steps
        self._nothing: Plan[Stream] = Plan()
        self._look_at = 0  # the step in which rows are to be looked at, if nothing changes
        self._begin_at = 0  # the step in which prompts wait for one another no more
        self._has_preempted = False  # in this step
        self._prefilling: frozenset[CallerQueue[Stream]] = (
            frozenset()
        )  # whose prompts were read last
        self._prefilled_seconds = 0.0  # of the one of them of whose prompts least was read

    @property
    def free_rows(self) -> int:
        return self.capacity - len(self.rows) - len(self.begun)

    @property
    def is_idle(self) -> bool:
        """Nothing to do now; streams that pause need none."""
        return not (self.rows or self.begun or self.queue_length)

    @property
    def has_waiting(self) -> bool:
        """Whether a stream waits for a row, or is being read."""
        return self.queue_length > 0 or bool(self.begun)

    @property
    def has_returning(self) -> bool:
        """Whether a stream waits for a row that has held one."""
        return self._returning > 0

    @property
    def queue_pressure(self) -> float:
        """1 with nobody waiting, more the more streams wait for each that runs.

        A pause for prefill costs those that run and serves those that wait.
        """
        return 1.0 + _URGENCY * self.newcomers / max(1, len(self.rows))

    @property
    def newcomers(self) -> int:
        """Streams that wait for a row for the first time, or to be read."""
        return self.queue_length - self._returning + len(self.begun)

    def arrive(self, stream: Stream) -> None:
        self._welcome(stream)
        self._wait(stream, Phase.WAITING)

    def park(self, stream: Stream) -> None:
        """A new stream has nothing to read yet: it pauses from the start."""
        self._welcome(stream)
        stream.phase = Phase.PAUSED
        self.paused.add(stream)

    def _welcome(self, stream: Stream) -> None:
        share = stream.share
        caller = self._callers.get(share.caller)
        if caller is None:
            self._order += 1
            caller = CallerQueue(share.caller, share.weight, self._order, self._now)
            self._callers[share.caller] = caller
        caller.weight = share.weight  # the latest, should it change
        caller.streams += 1
        stream.queue = caller

    def _wait(self, stream: Stream, phase: Phase) -> None:
        stream.phase = phase
        self._order += 1
        self.queue_length += 1
        self._returning += phase is Phase.RETURNING
        stream.since = self._now
        stream.queue.push(stream, self._order, phase is Phase.WAITING)
        self._waiting[stream.queue] = None
        self._look_at = self._now

    def _wait_no_more(self, stream: Stream) -> None:
        self.queue_length -= 1
        self._returning -= stream.phase is Phase.RETURNING
        stream.queue.remove(stream)
        if not stream.queue.waiting:
            del self._waiting[stream.queue]

    # -- before a step ------------------------------------------------------------------------

    def begin_step(self) -> None:
        self._now += 1

    def preemptions(self) -> Sequence[Stream]:
        """Running streams that are to give up their rows now, to callers that hold fewer.

        A stream that has a row set aside and is still being read gives it up here.
        """
        self._has_preempted = False
        if not self.queue_length or len(self._callers) == 1 or self._now < self._look_at:
            return _NOBODY
        free = self.free_rows
        if free and all(caller.first.group <= free for caller in self._waiting):
            return _NOBODY
        chosen = Exchange(self._waiting, self.rows, self.begun, free, self._now).choose()
        self._look_at = self._now if chosen else self._now + _SETTLED_STEPS
        self._has_preempted = bool(chosen)
        for stream in chosen:
            if stream.phase is Phase.BEGUN:
                self._put_back(stream)
        return [stream for stream in chosen if stream.phase is Phase.RUNNING]

    def _put_back(self, stream: Stream) -> None:
        del self.begun[stream]
        stream.queue.begun -= 1
        self._give_back(stream.queue)
        self._wait(stream, Phase.RETURNING)

    def preempt(self, stream: Stream) -> tuple[int, int]:
        """Take a running stream out of the batch, to wait again; returns rows as leave() does."""
        moved = self._vacate(stream)
        self._wait(stream, Phase.RETURNING)
        return moved

    def schedule(
        self,
        seconds: float,
        loan: float = 0.0,
        on_begin: Callable[[Stream], None] | None = None,
    ) -> Plan[Stream]:
        """Begin what there are rows for, and choose what to prefill.

        seconds: what prefill may take, by this scheduler's own estimate, while streams run.
        loan: what it may take where all that is to be read is read by that.
        on_begin: called with each new stream that gets a row, before its prompt is cut into
            chunks. It is not kept: an engine that its own scheduler refers to would outlive its
            model, since collections look at nothing that was set aside.
        """
        if not self.begun and not self.queue_length:
            return self._nothing
        begins = self._begin() if self._is_time_to_begin() else []
        if on_begin is not None:
            for stream in begins:
                on_begin(stream)
        prefill = self._choose_chunks(seconds, loan)
        read = {chunk.prompt: chunk.count for chunk in prefill}
        done = [s for s in self.begun if s.prompt.left == read.get(s.prompt, 0)]
        return Plan(begins, prefill, done)

    def _is_time_to_begin(self) -> bool:
        free = self.free_rows
        if not (free and self.queue_length):
            return False
        if (
            self.queue_length > free
            and free < self.capacity * _READ_TOGETHER_SHARE
            and not (self._has_preempted or self._returning)
            and all(caller.first.prompt.left for caller in self._waiting)
        ):
            self._begin_at = self._begin_at or self._now + _READ_TOGETHER_STEPS
            if self._now < self._begin_at:
                return False
        self._begin_at = 0
        return True

    def _begin(self) -> list[Stream]:
        """Set rows aside, each for the caller whose turn it is; returns the new streams."""
        begins: list[Stream] = []
        turns = [turn_of(caller) for caller in self._waiting]
        heapq.heapify(turns)
        while turns and self.free_rows:
            caller = turns[0][3]
            first = caller.first
            if first.group > self.free_rows:
                if self._now - first.since >= _OVERDUE:
                    break
                heapq.heappop(turns)  # smaller ones pass it, for a while
                continue
            for _ in range(first.group):
                self._set_row_aside(caller, begins)
            if caller.waiting:
                heapq.heapreplace(turns, turn_of(caller))
            else:
                heapq.heappop(turns)
        return begins

    def _set_row_aside(self, caller: CallerQueue[Stream], begins: list[Stream]) -> None:
        stream = caller.first
        if stream.phase is Phase.WAITING:
            begins.append(stream)
        self._wait_no_more(stream)
        stream.phase = Phase.BEGUN
        stream.since = caller.served = self._now
        self.begun[stream] = None
        caller.begun += 1
        caller.held += 1

    # -- prefill ------------------------------------------------------------------------------

    def _choose_chunks(self, seconds: float, loan: float) -> list[PrefillChunk]:
        """Prompts of all callers in turn, cut so that together they take ``seconds`` at most."""
        callers = {s.prompt: s.queue for s in self._by_priority() if s.prompt.left}
        if not callers:
            return []
        if not self.rows:
            seconds = self.policy.idle_seconds
        elif self._is_read_by(loan, list(callers)):
            seconds = max(seconds, loan)
        elif seconds <= 0:
            return []
        prompts = self._in_turn(callers, seconds)[: self.policy.rows]
        chunks = self._cut(prompts, seconds)
        each = self.cost.seconds(len(chunks), max(c.count for c in chunks)) / len(chunks)
        for chunk in chunks:
            caller = callers[chunk.prompt]
            caller.prefill_seconds += each / caller.weight
        return chunks

    def _is_read_by(self, seconds: float, prompts: Sequence[Prompt]) -> bool:
        """Whether all of them can be read as a whole in so many seconds. What is left of a long
        prompt is not: those who run have waited for it all along."""
        if len(prompts) > self.policy.rows or any(prompt.is_begun for prompt in prompts):
            return False
        return self._whole_seconds(prompts) <= seconds

    def _by_priority(self) -> Sequence[Stream]:
        return sorted(self.begun, key=_priority)

    def _in_turn(self, callers: dict[Prompt, CallerQueue[Stream]], seconds: float) -> list[Prompt]:
        """One prompt of each caller, then a second of each, …: of those who had least so far.

        Whoever has had more than the others is left out until they have had as much: a short
        prompt is not read slowly since many long ones are read beside it.
        """
        of: dict[CallerQueue[Stream], list[Prompt]] = {}
        for prompt, caller in callers.items():
            of.setdefault(caller, []).append(prompt)
        for caller in of.keys() - self._prefilling:
            # Time in which it wanted nothing is not made up for.
            caller.prefill_seconds = max(caller.prefill_seconds, self._prefilled_seconds)
        self._prefilling = frozenset(of)
        self._prefilled_seconds = least = min(caller.prefill_seconds for caller in of)
        due = [caller for caller in of if caller.prefill_seconds <= least + 0.5 * seconds]
        due.sort(key=lambda caller: caller.prefill_seconds)
        longest = max(len(of[caller]) for caller in due)
        return [of[c][n] for n in range(longest) for c in due if n < len(of[c])]

    def _cut(self, prompts: Sequence[Prompt], seconds: float) -> list[PrefillChunk]:
        """Side by side: a few rows more cost little, and nobody waits behind a long prompt."""
        if self.policy.whole:
            count = len(prompts)
            while count > 1 and self._whole_seconds(prompts[:count]) > seconds:
                count -= 1
            return [PrefillChunk(prompt, prompt.left) for prompt in prompts[:count]]
        left = [prompt.ahead for prompt in prompts]
        best, found = (1, _LEAST_TOKENS), 0
        for count, length in self._shapes(len(prompts), seconds):
            length = min(length, self.policy.chunk_tokens)
            read = sum(map(min, left[:count], repeat(length)))
            if found < _ENOUGH * read or read == sum(left):
                best, found = (count, length), read
        count, length = best
        return [PrefillChunk(p, min(length, p.ahead)) for p in prompts[:count]]

    def _shapes(self, count: int, seconds: float) -> Iterator[tuple[int, int]]:
        """Batches of up to ``count`` prompts that are read in time, small ones first: for each
        size that has a cost of its own, the most prompts, and tokens of each of them."""
        for size in self.cost.sizes(count):
            tokens = int(seconds / max(self.cost.seconds(size, 1) / size, _NO_TIME))
            for length in (tokens // size, tokens // size + 1):
                length = max(length, _LEAST_LENGTH)
                most = min(size, tokens // length)
                if most.bit_length() == size.bit_length():
                    yield most, length

    def _whole_seconds(self, prompts: Sequence[Prompt]) -> float:
        return self.cost.seconds(len(prompts), max(p.left for p in prompts))

    def prefilled(self, chunk: PrefillChunk) -> None:
        """The chunk was read."""
        chunk.prompt.prefilled += chunk.count
        chunk.prompt.is_begun = True

    # -- rows ---------------------------------------------------------------------------------

    def admit(self, stream: Stream) -> int:
        """Move a prefilled or returning stream into the next free row; returns that row."""
        del self.begun[stream]
        stream.queue.begun -= 1
        stream.phase = Phase.RUNNING
        stream.since = self._now
        stream.row = len(self.rows)
        self.rows.append(stream)
        return stream.row

    def pause(self, stream: Stream) -> tuple[int, int]:
        """Take a running stream out of the batch; returns rows as leave() does."""
        moved = self._vacate(stream)
        stream.phase = Phase.PAUSED
        self.paused.add(stream)
        return moved

    def resume(self, stream: Stream) -> None:
        """A paused stream goes on as soon as there is a row, before any new one of its caller."""
        self.paused.remove(stream)
        self._wait(stream, Phase.RETURNING)

    def leave(self, stream: Stream) -> tuple[int, int] | None:
        """Take a stream out wherever it is.

        Returns (its row, the last row), which the stream of the last row takes over, or None
        for one that held no row.
        """
        phase = stream.phase
        if phase is Phase.GONE:
            return None
        moved = self._vacate(stream) if phase is Phase.RUNNING else None
        if phase is Phase.PAUSED:
            self.paused.remove(stream)
        elif phase is Phase.BEGUN:
            del self.begun[stream]
            stream.queue.begun -= 1
            self._give_back(stream.queue)
        elif phase is not Phase.RUNNING:
            self._wait_no_more(stream)
        stream.phase = Phase.GONE
        stream.saved = None
        stream.queue.streams -= 1
        if not stream.queue.streams:
            del self._callers[stream.queue.name]
        return moved

    def _vacate(self, stream: Stream) -> tuple[int, int]:
        row, last = stream.row, len(self.rows) - 1
        self.rows[row] = self.rows[last]
        self.rows[row].row = row
        self.rows.pop()
        stream.row = NO_ROW
        self._give_back(stream.queue)
        return row, last

    def _give_back(self, caller: CallerQueue[Stream]) -> None:
        caller.held -= 1
        caller.served = self._now

    @property
    def waiting(self) -> list[Stream]:
        """Those that never had a row, as they came."""
        return self._all_in(Phase.WAITING)

    def everyone(self) -> list[Stream]:
        waiting, returning = self.waiting, self._all_in(Phase.RETURNING)
        return [*waiting, *self.begun, *self.rows, *returning, *self.paused]

    def _all_in(self, phase: Phase) -> list[Stream]:
        found = [s for caller in self._waiting for s in caller.all_waiting() if s.phase is phase]
        return sorted(found, key=lambda stream: stream.order)


def _priority(stream: ScheduledSequence) -> int:
    return -stream.share.priority


_NOBODY: Sequence[Never] = ()
