"""Continuous batching: streams join and leave one batch between the steps of one graph.

What a step makes, and what a stream reads next, each engine says for itself: ``decode.py`` draws
tokens, ``online_tagging.py`` gets them from the caller, ``forecasting.py`` draws values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from bundle.manifest import ATTENTION, StateTensor
from service.engine.errors import RequestError
from service.engine.finiteness import not_finite
from service.engine.prefill import PrefillBudget
from service.engine.prefixes import PrefixLookup
from service.engine.requests import (
    NO_CHECKPOINTS,
    Checkpoint,
    Event,
    Failed,
    Finished,
    FinishReason,
    ResumePolicy,
    SampleFinished,
    Sampling,
    Sink,
    State,
    Watch,
)
from service.engine.scheduler import (
    Phase,
    Plan,
    PrefillChunk,
    PrefillPolicy,
    Prompt,
    ScheduledSequence,
    Scheduler,
)
from service.engine.shares import NOBODY, Share
from service.engine.slots import Slots, StateStore, StepSlots
from service.engine.stopwatch import Stopwatch
from service.engine.topk import largest
from service.engine.watching import packed
from service.failpoints import failpoint
from service.step_buffers import StepBuffers

# Streams for which nothing is computed.
_RESTING = (Phase.PAUSED, Phase.RETURNING, Phase.GONE)


class Runner(Protocol):
    """The graphs of one model."""

    def attach(self, sides: tuple[StepBuffers, StepBuffers]) -> None:
        """Learn the arrays that steps read and write."""

    def prefill(self, tokens: Sequence[Any], states: Sequence[State | None]) -> list[State]:
        """The state after reading each row of tokens from its state (None: the first one)."""

    def step(self, side: int, rows: int) -> None:
        """One token for rows 0 … rows-1, from ``sides[side].inputs`` into its outputs."""


class Observer(Protocol):
    """Records each step, once, for the metrics."""

    def stepped(
        self,
        rows: int,
        waiting: int,
        prefill_tokens: int,
        seconds: float,
        prefill_seconds: float,
        followed: int = 0,
        gap: float = 0.0,
    ) -> None:
        """seconds: of the whole step, prefill_seconds of them for reading prompts. followed: tokens
        that came after others of their streams, by so many seconds (gap)."""

    def began(self, queue_seconds: float, is_resumed: bool) -> None: ...

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        """Of a request: until it began, and in steps from then on, unless all of it paused."""

    def first_token(self, seconds: float) -> None: ...

    def paused(self, count: int) -> None:
        """So many streams wait for their readers."""

    def preempted(self) -> None:
        """A stream lost its row to another caller's."""

    def finished(self, reason: FinishReason, input_tokens: int, output_tokens: int) -> None: ...

    def not_finite(self) -> None:
        """A request failed since the model computed NaN or infinity for it."""

    def prefix_found(self, tokens: int) -> None:
        """A prompt was looked up in the prefix cache, which knew so many of its tokens."""

    def idle(self) -> None:
        """Nothing runs or waits any more."""


@dataclass(frozen=True)
class GenerationModel:
    """What the engine must know of a model.

    begin_id: the token a stream starts with after a whole source; None where it starts with
        the prompt's last token. end_id: the token that ends a stream, None for none.
    pieces: the text of each token id as the first of a stream, and as a later one.
    never_sampled_ids: tokens that stand for no symbol and are never made. attended: places of the
        source that each step says it looks at, 0 for none.
    """

    state: tuple[StateTensor, ...]
    begin_id: int | None
    end_id: int | None
    pieces: tuple[Sequence[str], Sequence[str]]
    never_sampled_ids: tuple[int, ...] = ()
    attended: int = 0

    @property
    def reads_source(self) -> bool:
        return self.begin_id is not None

    @property
    def vocabulary(self) -> int:
        return len(self.pieces[0])


Stream = TypeVar("Stream", bound="StepSequence")
Request = TypeVar("Request")


@dataclass(eq=False, slots=True)
class RequestState(Generic[Stream, Request]):
    """What the streams of one request have in common while it runs.

    running: streams that have not ended. is_resumed: whether it goes on with an earlier stream.
    arrived: when it came. started: when prefill began. prefilled: when its first stream
    got a row. All on the engine's clock, in seconds; computing: on its time in steps.
    queue_seconds, compute_seconds: of what has been answered, whole once its last event is put.
    streams: once it has arrived at its engine. cached_tokens: of its input, that were not read.
    """

    request: Request
    sink: Sink[Event]
    arrived: float
    running: int = 1
    share: Share = NOBODY
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    is_resumed: bool = False
    output_tokens: int = 0
    cached_tokens: int = 0
    started: float | None = None
    prefilled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    computing: Stopwatch = field(default_factory=Stopwatch)
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    streams: list[Stream] = field(default_factory=list)


@dataclass(eq=False, slots=True, kw_only=True)
class StepSequence(ScheduledSequence):
    """A stream: one row of the batch while it runs.

    sink: its request's. sampling: how its row draws. key: of its random numbers. token: what its
    next step reads, of a stream of tokens; in the slots while it runs. made: tokens or values
    drawn. delivered: of them, how many the caller has got. delivered_before: of these, by an
    earlier stream that this one goes on with. What a row has made that was not taken from its
    columns counts in none of these.
    """

    progress: RequestState[Self, Any]
    sink: Sink[Event]
    sampling: Sampling
    key: int = 0
    sample: int = 0
    token: int = 0
    made: int = 0
    delivered: int = 0
    delivered_before: int = 0
    log_probability: float = 0.0

    @property
    def delivered_here(self) -> int:
        """Without what an earlier stream, which this one goes on with, had delivered."""
        return self.delivered - self.delivered_before


class StepEngine(Generic[Stream, Request]):
    """Owns the rows of one model. Used from one thread; knows time only through ``clock``."""

    batching_delay = 0.0  # a step never waits: who comes later joins the next one
    waits_for = "a row"

    slots: StepSlots

    def __init__(
        self,
        slots: StepSlots,
        prefill: PrefillPolicy,
        runner: Runner,
        clock: Callable[[], float],
        observer: Observer,
        prefill_budget: PrefillBudget | None = None,
    ) -> None:
        self.slots = slots
        self.runner = runner
        self.clock = clock
        self.observer = observer
        self.scheduler: Scheduler[Stream] = Scheduler(slots.capacity, prefill)
        self.prefill_budget = prefill_budget or PrefillBudget()
        self._last_step = 0.0
        self._step_seconds = 0.0  # of all steps before this one
        self._step_began: float | None = None  # None between steps
        # Of requests that pause or are answered in this step, which counts for them as a whole:
        # those that are answered with the seconds they had waited.
        self._stops: list[tuple[Stopwatch, float | None]] = []
        # That got something in this step; after one that broke they are still to be delivered.
        self._sinks: list[Sink[Event]] = []
        self._zeros: State = {s.name: np.zeros(s.shape, s.dtype) for s in slots.state}
        runner.attach(self.slots.sides())

    @property
    def is_idle(self) -> bool:
        return self.scheduler.is_idle

    def warm(self, sizes: Sequence[int]) -> None:
        """Step batches of these sizes once each way, before any stream: first runs allocate."""
        fitting = [rows for rows in sizes if rows <= self.scheduler.capacity]
        for rows in fitting:
            for side in (0, 1):
                self.runner.step(side, rows)
        self.slots.clear(max(fitting, default=0))

    # -- what each engine says for itself ------------------------------------------------------

    def _first_state(self, stream: Stream) -> State | None:
        """Of a stream that gets its first row; None for zeros."""
        raise NotImplementedError

    def _load(self, stream: Stream) -> None:
        """Set what a row that was just admitted reads beside its state."""
        raise NotImplementedError

    def _note_input(self, stream: Stream) -> None:
        """Keep what a row that is about to be left would read next, beside its state."""
        raise NotImplementedError

    def _made(self, stream: Stream) -> int:
        """What a running stream has made so far."""
        return stream.made

    def _take(self, stream: Stream) -> None:
        """Hand out what a running stream has made, before anything becomes of it."""

    def _draw_first(self, streams: Sequence[Stream]) -> int:
        """Give those that are about to get rows their first tokens before everybody's next step.

        Returns for how many it did; 0 where they join that step instead.
        """
        return 0

    def _commit(self, rows: int, now: float) -> None:
        """After a step of ``rows`` rows: hand out what it made, and have those streams leave or
        pause that are done or held up."""
        raise NotImplementedError

    def _checkpoint(self, stream: Stream) -> Checkpoint:
        """Where a stream is, after what the last step made for it."""
        raise NotImplementedError

    def _input_tokens(self, progress: RequestState[Stream, Request]) -> int:
        """What a request has read, as its caller counts it."""
        raise NotImplementedError

    def _measured(self, seconds: float) -> None:
        """A step took so long."""

    def _look_up(self, stream: Stream) -> None:
        """What of a new stream's input need not be read."""

    def _keep_prefix(self, prompt: Prompt, lookup: PrefixLookup) -> None:
        """A prompt that was looked up in a prefix cache is read up to somewhere."""
        raise NotImplementedError

    # -- from the thread: resume, cancel, fail -------------------------------------------------

    def resume(self, progress: RequestState[Stream, Request]) -> None:
        """The reader has caught up: what paused for it goes on."""
        for stream in progress.streams:
            if stream.phase is Phase.PAUSED:
                self.scheduler.resume(stream)
        self.observer.paused(len(self.scheduler.paused))

    def cancel(self, progress: RequestState[Stream, Request]) -> None:
        """Free the request's rows, if it still has any; it gets no further event."""
        if progress.running:
            self._leave(progress)
            self._report(progress, FinishReason.CANCELLED)
            self.observer.paused(len(self.scheduler.paused))
            if self.is_idle:
                self.observer.idle()

    def reject(
        self, progress: RequestState[Stream, Request], error: RequestError
    ) -> list[Sink[Event]]:
        """Give up a request of which arrive() raised: it has no streams."""
        progress.running = 0
        progress.sink.put(Failed(error))
        return [progress.sink]

    def fail(self, error: RequestError) -> list[Sink[Event]]:
        """Give up every request; each gets ``error`` as its last event."""
        failed = list(dict.fromkeys(stream.progress for stream in self.scheduler.everyone()))
        for progress in failed:
            self._leave(progress)
            progress.sink.put(Failed(error))
        self.observer.paused(0)
        self.observer.idle()
        answered, self._sinks = self._sinks, []
        return [*answered, *(progress.sink for progress in failed)]

    # -- one step ------------------------------------------------------------------------------

    def step(self) -> list[Sink[Event]]:
        """Prefill what is due, make one token for every row, and say who got something."""
        started = self._step_began = self.clock()
        scheduler = self.scheduler
        scheduler.begin_step()
        joined = prefilled = drawn = followed = 0
        prefill_seconds = gap = 0.0
        if scheduler.has_waiting:
            joined, drawn, prefilled, prefill_seconds = self._let_in(started)
        rows = drawn
        if not drawn:
            rows = len(scheduler.rows)
            if rows:
                self._run(rows)
                now = self.clock()
                followed, gap, self._last_step = rows - joined, now - self._last_step, now
                self._commit(rows, now)
        seconds = self.clock() - started
        self._step_seconds += seconds
        self._step_began = None
        if rows and not drawn:
            self._measured(seconds)
            self.prefill_budget.earn(seconds - prefill_seconds)
        if self._stops:
            self._report_answered()
        queue = scheduler.queue_length
        self.observer.stepped(rows, queue, prefilled, seconds, prefill_seconds, followed, gap)
        if not scheduler.rows and self.is_idle:
            self.prefill_budget.rest()
            self.observer.idle()
        sinks, self._sinks = self._sinks, []
        return sinks

    def _let_in(self, now: float) -> tuple[int, int, int, float]:
        """Read prompts, and give rows to those that are read.

        Returns how many have joined everybody's step; how many had their first tokens in one of
        their own, after which there is none of everybody's; tokens read of prompts, and the seconds
        that took.
        """
        for stream in self.scheduler.preemptions():
            self._preempt(stream)
        queue_pressure = self.scheduler.queue_pressure
        allowed = self.prefill_budget.allowance(queue_pressure, self.scheduler.newcomers)
        plan, prefilled, prefill_seconds = self._read_prompts(allowed, now)
        if prefill_seconds and self.scheduler.rows:
            self.prefill_budget.spend(prefill_seconds / queue_pressure, prefill_seconds)
        drawn = self._draw_first(plan.admits)
        if drawn:
            return 0, drawn, prefilled, prefill_seconds
        for stream in plan.admits:
            self._admit(stream)
        return len(plan.admits), 0, prefilled, prefill_seconds

    def _report_answered(self) -> None:
        stops, self._stops = self._stops, []
        for computing, waited in stops:
            computing.stop(self._step_seconds)
            if waited is not None:
                self.observer.answered(waited, computing.seconds)
                computing.seconds = 0.0

    def _begin(self, plan: Plan[Stream], now: float) -> None:
        for stream in plan.begins:
            progress = stream.progress
            if progress.started is None:
                progress.started = now
                progress.computing.start(self._step_seconds)
                self.observer.began(now - progress.arrived, progress.is_resumed)

    def _read_prompts(self, allowed: float, now: float) -> tuple[Plan[Stream], int, float]:
        """One batch of prompts, or as many as fit into a longer pause.

        Returns who has a row now, tokens read of prompts, and the seconds that took.
        """
        prefilled, prefill_seconds, loan = 0, 0.0, self.prefill_budget.loan
        while True:
            plan = self.scheduler.schedule(allowed, loan, self._look_up)
            loan = 0.0
            if plan.begins:
                self._begin(plan, now)
            if plan.prefill:
                seconds = self._prefill(plan.prefill)
                prefill_seconds += seconds
                allowed -= seconds
                prefilled += sum(chunk.count for chunk in plan.prefill)
            if not (plan.prefill and self.scheduler.rows and self.prefill_budget.goes_on(allowed)):
                return plan, prefilled, prefill_seconds

    def _prefill(self, chunks: Sequence[PrefillChunk]) -> float:
        """Read the chunks; returns the seconds that took."""
        started = self.clock()
        prompts = [chunk.prompt for chunk in chunks]
        tokens = [
            p.tokens[p.prefilled : p.prefilled + c.count]
            for p, c in zip(prompts, chunks, strict=True)
        ]
        failpoint("engine.prefill")
        states = self.runner.prefill(tokens, [prompt.state for prompt in prompts])
        for chunk, state in zip(chunks, states, strict=True):
            chunk.prompt.state = state
            self.scheduler.prefilled(chunk)
            if chunk.prompt.lookup is not None:
                self._keep_prefix(chunk.prompt, chunk.prompt.lookup)
        seconds = self.clock() - started
        self.scheduler.cost.observe(len(chunks), max(chunk.count for chunk in chunks), seconds)
        return seconds

    def _admit(self, stream: Stream) -> None:
        """Into the next row: from where it paused, was resumed, or was prefilled to."""
        row = self.scheduler.admit(stream)
        self._start_computing(stream.progress)
        state, stream.saved = stream.saved, None
        if state is None:
            state = self._first_state(stream)
        self.slots.take(row, state)
        self._load(stream)
        self.slots.seed(row, stream.key, stream.sample, stream.made)

    def _start_computing(self, progress: RequestState[Stream, Request]) -> None:
        if progress.prefilled is None:
            progress.prefilled = self.clock()
        progress.computing.start(self._step_seconds)

    def _run(self, rows: int) -> None:
        used_up = self.slots.draw_uniforms(rows)
        failpoint("engine.decode")
        self.runner.step(self.slots.side, rows)
        self.slots.swap()
        for row in used_up:
            stream = self.scheduler.rows[row]
            self.slots.seed(row, stream.key, stream.sample, self._made(stream) + 1)

    def _requests_of(self, broken: Sequence[int]) -> set[RequestState[Stream, Request]]:
        """The requests of rows for which this step computed NaN: nothing of them may go out."""
        rows = self.scheduler.rows
        return {rows[row].progress for row in broken}

    def _fail_alone(self, broken: set[RequestState[Stream, Request]]) -> None:
        """Whoever shares the batch with them goes on."""
        for progress in broken:
            self._leave(progress)
            self.observer.not_finite()
            progress.sink.put(Failed(not_finite()))
            self._sinks.append(progress.sink)

    def _note_first(self, progress: RequestState[Stream, Request], now: float) -> None:
        if progress.first_token is None:
            progress.first_token = now
            self.observer.first_token(now - progress.arrived)

    def _finish(self, stream: Stream, reason: FinishReason) -> None:
        progress = stream.progress
        wants_one = progress.checkpoints.at_end or reason is FinishReason.HANDED_OVER
        if wants_one and reason is not FinishReason.END:
            progress.sink.put(self._checkpoint(stream))
        self._vacate(stream)
        self._end_sample(
            progress,
            SampleFinished(stream.sample, reason, stream.delivered_here, stream.log_probability),
        )

    def _end_sample(self, progress: RequestState[Stream, Request], ended: SampleFinished) -> None:
        progress.output_tokens += ended.output_tokens
        progress.sink.put(ended)
        progress.running -= 1
        if progress.running:
            self._stop_if_paused(progress)
        else:
            self._end(progress, ended.reason)

    def _end(self, progress: RequestState[Stream, Request], reason: FinishReason) -> None:
        progress.finished = self.clock()
        self._note_answered(progress)
        first = progress.first_token
        progress.sink.put(
            Finished(
                reason,
                self._input_tokens(progress),
                progress.output_tokens,
                self._waited(progress),
                first - progress.arrived if first and progress.output_tokens else 0.0,
                progress.cached_tokens,
            )
        )
        self._report(progress, reason)

    def _note_answered(self, progress: RequestState[Stream, Request]) -> None:
        self._note_times(progress, self._waited(progress))

    def _note_times(self, progress: RequestState[Stream, Request], waited: float) -> None:
        """It is answered in this step, and waited so many seconds for its first one.

        Its reader may take the last event before the step is over, so its own times end here.
        """
        began = self._step_began
        in_step = 0.0 if began is None else self.clock() - began
        progress.queue_seconds += waited
        progress.compute_seconds += progress.computing.read(self._step_seconds + in_step)
        self._stops.append((progress.computing, waited))

    def _waited(self, progress: RequestState[Stream, Request]) -> float:
        return 0.0 if progress.started is None else progress.started - progress.arrived

    # -- leaving -------------------------------------------------------------------------------

    def _pause(self, stream: Stream) -> None:
        self._save(stream)
        self._give(*self.scheduler.pause(stream))
        self._stop_if_paused(stream.progress)
        self.observer.paused(len(self.scheduler.paused))

    def _preempt(self, stream: Stream) -> None:
        """Its row is another caller's turn; it goes on from here once it has one again."""
        self._save(stream)
        self._give(*self.scheduler.preempt(stream))
        self._stop_if_paused(stream.progress)
        self.observer.preempted()

    def _save(self, stream: Stream) -> None:
        self._note_input(stream)
        stream.saved = self.slots.save(stream.row)

    def _stop_if_paused(self, progress: RequestState[Stream, Request]) -> None:
        """Nothing is computed for a request whose streams all wait for their reader, or a row."""
        # Backwards: streams pause in order, so the first one looked at mostly still runs.
        if all(s.phase in _RESTING for s in reversed(progress.streams)):
            self._stops.append((progress.computing, None))

    def _vacate(self, stream: Stream) -> None:
        moved = self.scheduler.leave(stream)
        if moved:
            self._give(*moved)

    def _give(self, row: int, last: int) -> None:
        """A stream has left ``row``; that of the last one has moved into it."""
        self.slots.give(row, last)

    def _leave(self, progress: RequestState[Stream, Request]) -> None:
        for stream in progress.streams:
            if stream.phase is Phase.RUNNING:
                self._take(stream)
            self._vacate(stream)
        progress.running = 0

    def _report(self, progress: RequestState[Stream, Request], reason: FinishReason) -> None:
        delivered = sum(stream.delivered_here for stream in progress.streams)
        made = max(progress.output_tokens, delivered)
        self.observer.finished(reason, self._input_tokens(progress), made)


class TokenEngine(StepEngine[Stream, Request]):
    """A step engine of tokens: each row reads one, and draws among the vocabulary."""

    slots: Slots

    def __init__(
        self,
        model: GenerationModel,
        runner: Runner,
        capacity: int,
        clock: Callable[[], float],
        observer: Observer,
        prefill_budget: PrefillBudget | None = None,
        rows: StateStore | None = None,
    ) -> None:
        self.model = model
        super().__init__(
            Slots(model.state, capacity, model.vocabulary, rows, model.attended),
            PrefillPolicy(whole=model.reads_source),
            runner,
            clock,
            observer,
            prefill_budget,
        )

    def _load(self, stream: Stream) -> None:
        values = stream.sampling.values
        self.slots.control(stream.row, stream.token, self._reports(stream), **values)

    def _reports(self, stream: Stream) -> bool:
        """Whether more than its own tokens' log-probabilities is read of it: those of others, or
        how it looks at its source."""
        raise NotImplementedError

    def _note_input(self, stream: Stream) -> None:
        stream.token = int(self.slots.controls["token"][stream.row])

    def _watched(self, row: int, watch: Watch) -> bytes:
        """What the step that was just run left of a row's state and how it looked at the source,
        as TokenMade has it."""
        state = self.slots.save_carried(row)
        if ATTENTION in watch.tensors:
            state[ATTENTION] = self.slots.attention[row]
        return packed(state, watch)

    def _likeliest(self, row: int, count: int) -> tuple[tuple[int, float], ...]:
        known = self.slots.log_probabilities[row]
        best = largest(known, count)
        return tuple(zip(best.tolist(), known[best].tolist(), strict=True))
