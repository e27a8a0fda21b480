"""Continuous batching: streams join and leave one batch between the steps of one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import StateTensor
from service.engine.beam_search import BeamSearch
from service.engine.errors import RequestError
from service.engine.finiteness import broken_rows, not_finite
from service.engine.logits_processor import LogitsProcessor
from service.engine.open_work import Ahead
from service.engine.prefill import PrefillBudget
from service.engine.requests import (
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    GenerateRequest,
    NextTokenDistribution,
    RequestState,
    SampleFinished,
    Sink,
    Snapshot,
    State,
    TokenMade,
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
from service.engine.slots import Slots, StateStore, StepBuffers
from service.engine.stop_strings import StopMatcher
from service.engine.stopwatch import Stopwatch
from service.engine.throughput import Throughput
from service.engine.topk import largest
from service.failpoints import failpoint

# Ends by which streams show how much they make of what they may.
_COMPLETE = (FinishReason.END, FinishReason.STOP, FinishReason.LENGTH)
# Streams for which nothing is computed.
_RESTING = (Phase.PAUSED, Phase.RETURNING, Phase.GONE)


class Runner(Protocol):
    """The graphs of one model."""

    def attach(self, sides: tuple[StepBuffers, StepBuffers]) -> None:
        """Learn the arrays that steps read and write."""

    def prefill(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State | None]
    ) -> list[State]:
        """The state after reading each row of tokens from its state (None: the first one)."""

    def step(self, side: int, rows: int) -> None:
        """One token for rows 0 … rows-1, from ``sides[side].inputs`` into its outputs."""


class Observer(Protocol):
    """Records each step, once, for the metrics."""

    def stepped(
        self, rows: int, waiting: int, primed_tokens: int, seconds: float, prime_seconds: float
    ) -> None:
        """seconds: of the whole step, prime_seconds of them for reading prompts."""

    def began(self, queue_seconds: float, is_resumed: bool) -> None: ...

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        """Of a request: until it began, and in steps from then on, unless all of it paused."""

    def first_token(self, seconds: float) -> None: ...

    def tokens_followed(self, count: int, seconds: float) -> None: ...

    def paused(self, count: int) -> None:
        """So many streams wait for their readers."""

    def preempted(self) -> None:
        """A stream lost its row to another caller's."""

    def finished(self, reason: FinishReason, input_tokens: int, output_tokens: int) -> None: ...

    def not_finite(self) -> None:
        """A request failed since the model computed NaN or infinity for it."""

    def idle(self) -> None:
        """Nothing runs or waits any more."""


@dataclass(frozen=True)
class GenerationModel:
    """What the engine must know of a model.

    begin_id: the token a stream starts with after a whole source; None where it starts with
        the prompt's last token. end_id: the token that ends a stream, None for none.
    pieces: the text of each token id as the first of a stream, and as a later one.
    never_sampled_ids: tokens that stand for no symbol and are never made.
    """

    state: tuple[StateTensor, ...]
    begin_id: int | None
    end_id: int | None
    pieces: tuple[Sequence[str], Sequence[str]]
    never_sampled_ids: tuple[int, ...] = ()

    @property
    def reads_source(self) -> bool:
        return self.begin_id is not None

    @property
    def vocabulary(self) -> int:
        return len(self.pieces[0])


@dataclass(eq=False, slots=True)
class DecodeSequence(ScheduledSequence):
    """One sample of a request, or one row of its beam search.

    token: what its next step reads; in the arena while it runs. is_plain: every token goes
    out as it is, with nothing to look up, hold back, count or report. is_fast: it is plain and its
    first token is out, so that until its token number ``until``, which ends it or is followed by
    a checkpoint, the sink is all that a token needs: after a step
    little of Python is left in the caches, and each further object that is touched costs.
    """

    progress: RequestState = None  # type: ignore[assignment]
    sample: int = 0
    token: int = 0
    made: int = 0
    delivered: int = 0
    log_probability: float = 0.0
    stops: StopMatcher | None = None
    adjustments: LogitsProcessor | None = None
    search: BeamSearch | None = None
    is_plain: bool = True
    is_fast: bool = False
    sink: Sink = None  # type: ignore[assignment]
    until: int = 0


class GenerateEngine:
    """Owns the rows of one model. Used from one thread; knows time only through ``clock``."""

    batching_delay = 0.0  # a step never waits: who comes later joins the next one
    waits_for = "a row"

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
        self.runner = runner
        self.clock = clock
        self.observer = observer
        self.scheduler: Scheduler[DecodeSequence] = Scheduler(
            capacity, PrefillPolicy(whole=model.reads_source)
        )
        self.arena = Slots(model.state, capacity, model.vocabulary, rows)
        self.prefill_budget = prefill_budget or PrefillBudget()
        self._last_step = 0.0
        self._step_seconds = 0.0  # of all steps before this one
        # Of requests that pause or are answered in this step, which counts for them as a whole:
        # those that are answered with the seconds they had waited.
        self._stops: list[tuple[Stopwatch, float | None]] = []
        # That got something in this step; after one that broke they are still to be delivered.
        self._sinks: list[Sink] = []
        self._throughput = Throughput()
        self._zeros: State = {s.name: np.zeros(s.shape, s.dtype) for s in model.state}
        runner.attach(self.arena.sides())

    @property
    def is_idle(self) -> bool:
        return self.scheduler.is_idle

    def warm(self, sizes: Sequence[int]) -> None:
        """Step batches of these sizes once each way, before any stream: first runs allocate."""
        for rows in sizes:
            if rows <= self.scheduler.capacity:
                for side in (0, 1):
                    self.runner.step(side, rows)
        self.arena.clear()

    def warm_prefill(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Prefill batches of these (prompts, tokens) once; the cost of each is learned too."""
        for rows, length in shapes:
            started = self.clock()
            self.runner.prefill([[0] * length] * rows, [None] * rows)
            self.scheduler.cost.observe(rows, length, self.clock() - started)

    # -- from the thread: open, arrive, resume, cancel ---------------------------------------

    def open(self, request: GenerateRequest, sink: Sink, share: Share = NOBODY) -> RequestState:
        """The streams of ``request``; they run once they have arrived."""
        count = request.beam.width if request.beam else request.samples
        progress = RequestState(request, sink, count, share)
        prompt = Prompt(self._to_prefill(request), count, state=request.start)
        search = self._search(request) if request.beam else None
        for number in range(count):
            stream = self._stream(progress, prompt, number)
            stream.search = search
            progress.streams.append(stream)
        return progress

    def _to_prefill(self, request: GenerateRequest) -> Sequence[int]:
        """A prompt's last token goes through the step; a resumed one was read long ago."""
        if self.model.reads_source:
            return request.tokens
        return () if request.resumed else request.tokens[:-1]

    def _stream(self, progress: RequestState, prompt: Prompt, number: int) -> DecodeSequence:
        request, resumed = progress.request, progress.request.resumed
        if resumed:
            first = resumed.token
        elif request.token is not None:
            first = request.token
        elif self.model.begin_id is not None:
            first = self.model.begin_id
        else:
            first = request.tokens[-1]
        stream = DecodeSequence(
            prompt,
            group=request.beam.width if request.beam else 1,
            share=progress.share,
            progress=progress,
            sink=progress.sink,
            sample=request.first_sample + number,
            token=first,
            made=resumed.made if resumed else 0,
            delivered=resumed.delivered if resumed else 0,
            # What was held back is delivered here, so it counts here.
            log_probability=sum(t.log_probability for t in resumed.held) if resumed else 0.0,
        )
        if request.stop:
            stream.stops = StopMatcher(request.stop, resumed.held if resumed else ())
        if not request.beam:
            stream.adjustments = LogitsProcessor.of(
                request.sampling,
                # The ids of a source are of another vocabulary than what is made.
                () if self.model.reads_source else request.tokens,
                resumed.counts if resumed else {},
                self.model.end_id,
                request.min_tokens,
            )
        stream.is_plain = not (stream.stops or stream.adjustments or request.top)
        return stream

    def _search(self, request: GenerateRequest) -> BeamSearch:
        assert request.beam is not None, "asked for"
        masked = np.zeros(self.model.vocabulary)
        LogitsProcessor(request.sampling, (), {}, None, 0).fill(masked, masked, 0)
        masked[list(self.model.never_sampled_ids)] = -np.inf
        return BeamSearch(
            request.beam, request.max_tokens, request.min_tokens, self.model.end_id, masked
        )

    def cost(self, request: GenerateRequest) -> float:
        """Tokens that it will make, by how much of what they may others made."""
        if request.only_reads:
            return float(request.samples)
        count = request.beam.width if request.beam else request.samples
        left = request.max_tokens - (request.resumed.made if request.resumed else 0)
        return count * left * self._throughput.made_share

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        scheduler = self.scheduler
        if scheduler.free_rows > scheduler.queue_length + coming:
            return 0.0
        return self._throughput.wait_seconds(ahead, scheduler.capacity)

    def arrive(self, progress: RequestState) -> None:
        self.prefill_budget.newcomer()
        for stream in progress.streams:
            self.scheduler.arrive(stream)

    def resume(self, progress: RequestState) -> None:
        """The reader has caught up: what paused for it goes on."""
        for stream in progress.streams:
            if stream.phase is Phase.PAUSED:
                self.scheduler.resume(stream)
        self.observer.paused(len(self.scheduler.paused))

    def cancel(self, progress: RequestState) -> None:
        """Free the request's rows, if it still has any; it gets no further event."""
        if progress.running:
            self._leave(progress)
            self._report(progress, FinishReason.CANCELLED)
            self.observer.paused(len(self.scheduler.paused))
            if self.is_idle:
                self.observer.idle()

    def fail(self, error: RequestError) -> list[Sink]:
        """Give up every request; each gets ``error`` as its last event."""
        failed = list(dict.fromkeys(stream.progress for stream in self.scheduler.everyone()))
        for progress in failed:
            self._leave(progress)
            progress.sink.put(Failed(error))
        self.observer.paused(0)
        self.observer.idle()
        answered, self._sinks = self._sinks, []
        return [*answered, *(progress.sink for progress in failed)]

    def hand_over(self, error: RequestError) -> list[Sink]:
        """End every request, for an engine that is about to stop.

        One that asked for it gets where each of its streams is, to go on elsewhere; the others,
        and those whose input was not read yet, get ``error``.
        """
        requests = list(dict.fromkeys(s.progress for s in self.scheduler.everyone()))
        for progress in requests:
            unfinished = [s for s in progress.streams if s.phase is not Phase.GONE]
            checkpoints = self._last_checkpoints(progress, unfinished)
            self._leave(progress)
            if not checkpoints:
                progress.sink.put(Failed(error))
                continue
            for checkpoint in checkpoints:
                progress.sink.put(checkpoint)
            progress.output_tokens += sum(map(delivered_here, unfinished))
            self._end(progress, FinishReason.HANDED_OVER)
        self._report_answered()
        self.observer.paused(len(self.scheduler.paused))
        self.observer.idle()
        return [progress.sink for progress in requests]

    def _last_checkpoints(
        self, progress: RequestState, unfinished: Sequence[DecodeSequence]
    ) -> list[Checkpoint]:
        """Where each of the streams is; none for a request that cannot go on elsewhere."""
        request = progress.request
        if request.beam or request.only_reads or not request.checkpoints.on_stop:
            return []
        if any(self._where(stream) is None for stream in unfinished):
            return []
        return [Checkpoint(stream.sample, self.snapshot(stream)) for stream in unfinished]

    # -- one step ------------------------------------------------------------------------------

    def step(self) -> list[Sink]:
        """Prefill what is due, make one token for every row, and say who got something."""
        started = self.clock()
        for stream in self.scheduler.preemptions():
            self._preempt(stream)
        queue_pressure = self.scheduler.queue_pressure
        allowed = self.prefill_budget.allowance(queue_pressure, self.scheduler.newcomers)
        plan, prefilled, prefill_seconds = self._read_prompts(allowed, started)
        if prefill_seconds and self.scheduler.rows:
            self.prefill_budget.spend(prefill_seconds / queue_pressure, prefill_seconds)
        for stream in plan.admits:
            self._admit(stream)
        rows = len(self.scheduler.rows)
        if rows:
            self._run(rows)
            self._commit(rows, len(plan.admits))
        queue = self.scheduler.queue_length
        seconds = self.clock() - started
        self._step_seconds += seconds
        if rows:
            self._throughput.stepped(self.scheduler.rows, seconds)
        self._report_answered()
        self.observer.stepped(rows, queue, prefilled, seconds, prefill_seconds)
        if self.is_idle:
            self.observer.idle()
        sinks, self._sinks = self._sinks, []
        return sinks

    def _report_answered(self) -> None:
        stops, self._stops = self._stops, []
        for computing, waited in stops:
            computing.stop(self._step_seconds)
            if waited is not None:
                self.observer.answered(waited, computing.seconds)
                computing.seconds = 0.0

    def _begin(self, plan: Plan[DecodeSequence], now: float) -> None:
        for stream in plan.begins:
            progress = stream.progress
            if progress.started is None:
                progress.started = now
                progress.computing.start(self._step_seconds)
                request = progress.request
                self.observer.began(now - request.arrived, request.resumed is not None)

    def _read_prompts(self, allowed: float, now: float) -> tuple[Plan[DecodeSequence], int, float]:
        """One batch of prompts, or as many as fit into a longer pause.

        Returns who has a row now, tokens read of prompts, and the seconds that took.
        """
        prefilled, prefill_seconds = 0, 0.0
        while True:
            plan = self.scheduler.schedule(allowed)
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
        seconds = self.clock() - started
        self.scheduler.cost.observe(len(chunks), max(chunk.count for chunk in chunks), seconds)
        return seconds

    def _admit(self, stream: DecodeSequence) -> None:
        """Into the next row: from where it paused, was resumed, or was prefilled to."""
        progress = stream.progress
        row, request = self.scheduler.admit(stream), progress.request
        if progress.prefilled is None:
            progress.prefilled = self.clock()
        progress.computing.start(self._step_seconds)
        state, stream.saved = stream.saved, None
        if state is None:
            state = self._first_state(stream)
        self.arena.take(row, state)
        sampling = request.sampling
        self.arena.control(row, stream.token, **sampling.values)
        if stream.adjustments:
            bias, seen = self._rows(stream)
            stream.adjustments.fill(bias, seen, stream.made)
        self.arena.seed(row, sampling.seed, stream.sample, stream.made)

    def _first_state(self, stream: DecodeSequence) -> State | None:
        prompt, resumed = stream.prompt, stream.progress.request.resumed
        state = prompt.state
        prompt.unserved -= 1
        if not prompt.unserved:
            prompt.state = None  # nobody needs it any more
        return {**(state or {}), **resumed.state} if resumed else state

    def _rows(self, stream: DecodeSequence) -> tuple[NDArray[Any], NDArray[Any]]:
        controls = self.arena.controls
        return controls["bias"][stream.row], controls["seen"][stream.row]

    def _run(self, rows: int) -> None:
        used_up = self.arena.draw_uniforms(rows)
        started = self.clock()
        failpoint("engine.decode")
        self.runner.step(self.arena.side, rows)
        self.prefill_budget.earn(self.clock() - started)
        self.arena.swap()
        for row in used_up:
            stream = self.scheduler.rows[row]
            seed = stream.progress.request.sampling.seed
            self.arena.seed(row, seed, stream.sample, stream.made + 1)

    def _commit(self, rows: int, joined: int) -> None:
        """Hand out the tokens of this step; then streams that are done or held up leave."""
        now = self.clock()
        self.observer.tokens_followed(rows - joined, now - self._last_step)
        self._last_step = now
        arena = self.arena
        tokens = arena.next_token[:rows].tolist()
        log_probabilities = arena.log_probability[:rows].tolist()
        arena.controls["token"][:rows] = arena.next_token[:rows]
        broken = self._find_broken(log_probabilities)
        end_id, pieces, sinks = self.model.end_id, self.model.pieces[1], self._sinks
        done: list[tuple[DecodeSequence, FinishReason]] = []
        behind: list[DecodeSequence] = []
        searches: dict[BeamSearch, RequestState] = {}
        for stream, token, log_probability in zip(
            self.scheduler.rows, tokens, log_probabilities, strict=True
        ):
            sink = stream.sink
            made = stream.made
            if stream.is_fast and token != end_id and made + 1 != stream.until:
                # What most tokens of most streams take; _hand_out does the same and more.
                stream.made = made + 1
                stream.delivered += 1
                stream.log_probability += log_probability
                sink.put(TokenMade(token, pieces[token], made, log_probability, stream.sample))
                reason = None
            elif broken and stream.progress in broken:
                continue
            elif stream.search:
                searches[stream.search] = stream.progress
                stream.made += 1
                continue
            else:
                reason = self._hand_out(stream, token, log_probability, now)
            sinks.append(sink)
            if reason:
                done.append((stream, reason))
            elif sink.is_full:
                behind.append(stream)
        # Rows move when a stream leaves, so what this step computed is read before.
        answered = [p for search, p in searches.items() if not self._goes_on(search, p)]
        for progress in answered:
            self._answer(progress, now)
        for stream, reason in done:
            self._finish(stream, reason)
        for stream in behind:
            self._pause(stream)
        self._fail_alone(broken)

    def _find_broken(self, log_probabilities: Sequence[float]) -> set[RequestState]:
        """The requests for which this step computed NaN: nothing of them may go out."""
        rows = self.scheduler.rows
        broken = {rows[row].progress for row in broken_rows(log_probabilities)}
        for progress in broken:
            for stream in progress.streams:
                stream.is_fast = False
        return broken

    def _fail_alone(self, broken: set[RequestState]) -> None:
        """Whoever shares the batch with them goes on."""
        for progress in broken:
            self._leave(progress)
            self.observer.not_finite()
            progress.sink.put(Failed(not_finite()))
            self._sinks.append(progress.sink)

    def _hand_out(
        self, stream: DecodeSequence, token: int, log_probability: float, now: float
    ) -> FinishReason | None:
        """One token of one stream; returns why the stream ends, if it does."""
        request = stream.progress.request
        if request.only_reads:
            known = self.arena.log_probabilities[stream.row].copy()
            stream.sink.put(NextTokenDistribution(known, self.arena.save(stream.row)))
            return FinishReason.READ
        self._note_first(stream.progress, now)
        stream.log_probability += log_probability
        position = stream.made
        stream.made += 1
        stream.is_fast = stream.is_plain
        stream.until = _next_stop(stream.made, request)
        if token == self.model.end_id:
            self._deliver(stream, stream.stops.flush() if stream.stops else [])
            return FinishReason.END
        made = TokenMade(
            token,
            self.model.pieces[position > 0][token],
            position,
            log_probability,
            stream.sample,
            self._likeliest(stream.row, request.top) if request.top else (),
        )
        if stream.adjustments:
            stream.adjustments.follow(token, *self._rows(stream), stream.made)
        released, stopped = [made], False
        if stream.stops and stream.made > request.min_tokens:
            released, stopped = stream.stops.feed(made)
        self._deliver(stream, released)
        if stopped:
            return FinishReason.STOP
        if stream.made == request.max_tokens:
            self._deliver(stream, stream.stops.flush() if stream.stops else [])
            return FinishReason.LENGTH
        every = request.checkpoints.every
        if every and stream.made % every == 0:
            stream.progress.sink.put(Checkpoint(stream.sample, self.snapshot(stream)))
        return None

    def _note_first(self, progress: RequestState, now: float) -> None:
        if progress.first_token is None:
            progress.first_token = now
            self.observer.first_token(now - progress.request.arrived)

    def _likeliest(self, row: int, count: int) -> tuple[tuple[int, float], ...]:
        known = self.arena.log_probabilities[row]
        best = largest(known, count)
        return tuple(zip(best.tolist(), known[best].tolist(), strict=True))

    def _deliver(self, stream: DecodeSequence, released: Sequence[TokenMade]) -> None:
        stream.delivered += len(released)
        for made in released:
            stream.progress.sink.put(made)

    def snapshot(self, stream: DecodeSequence) -> Snapshot:
        """Where a stream is, after what the last step drew for it; its input must be read."""
        request, where = stream.progress.request, self._where(stream)
        assert where is not None, "its input is read"
        token, state = where
        needs_tokens = self.model.reads_source or request.sampling.repetition_penalty != 1.0
        resumed = request.resumed
        return Snapshot(
            sampling=request.sampling,
            sample=stream.sample,
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            stop=request.stop,
            input_tokens=resumed.input_tokens if resumed else len(request.tokens),
            tokens=request.tokens if needs_tokens else (),
            token=token,
            made=stream.made,
            delivered=stream.delivered,
            held=stream.stops.held if stream.stops else (),
            counts=dict(stream.adjustments.counts) if stream.adjustments else {},
            state=state,
        )

    def _where(self, stream: DecodeSequence) -> tuple[int, State] | None:
        """The token that a stream reads next, and its carried state; None before it has one."""
        if stream.phase is Phase.RUNNING:
            token = int(self.arena.controls["token"][stream.row])
            return token, self.arena.save_carried(stream.row)
        resumed, state = stream.progress.request.resumed, stream.saved
        if state is None and resumed:
            state = resumed.state
        elif state is None and not stream.prompt.left:
            state = stream.prompt.state or self._zeros
        if state is None:
            return None
        return stream.token, {
            spec.name: state[spec.name] for spec in self.model.state if spec.carried
        }

    def _finish(self, stream: DecodeSequence, reason: FinishReason) -> None:
        progress = stream.progress
        wants_one = progress.request.checkpoints.at_end or reason is FinishReason.HANDED_OVER
        if wants_one and reason is not FinishReason.END:
            progress.sink.put(Checkpoint(stream.sample, self.snapshot(stream)))
        self._vacate(stream)
        self._end_sample(
            progress,
            SampleFinished(stream.sample, reason, delivered_here(stream), stream.log_probability),
        )

    def _end_sample(self, progress: RequestState, ended: SampleFinished) -> None:
        progress.output_tokens += ended.output_tokens
        progress.sink.put(ended)
        progress.running -= 1
        if progress.running:
            self._stop_if_paused(progress)
        else:
            self._end(progress, ended.reason)

    def _end(self, progress: RequestState, reason: FinishReason) -> None:
        request = progress.request
        progress.finished = self.clock()
        self._note_answered(progress)
        waited = 0.0 if progress.started is None else progress.started - request.arrived
        first = progress.first_token
        if reason in _COMPLETE and request.max_tokens:
            count = request.beam.best if request.beam else request.samples
            self._throughput.ended(progress.output_tokens / (count * request.max_tokens))
        progress.sink.put(
            Finished(
                reason,
                self._input_tokens(progress),
                progress.output_tokens,
                waited,
                first - request.arrived if first and progress.output_tokens else 0.0,
            )
        )
        self._report(progress, reason)

    def _note_answered(self, progress: RequestState) -> None:
        waited = 0.0 if progress.started is None else progress.started - progress.request.arrived
        self._stops.append((progress.computing, waited))

    def _input_tokens(self, progress: RequestState) -> int:
        request = progress.request
        return request.resumed.input_tokens if request.resumed else len(request.tokens)

    # -- beams ---------------------------------------------------------------------------------

    def _goes_on(self, search: BeamSearch, progress: RequestState) -> bool:
        """Choose how a beam's rows go on, and move their states accordingly."""
        rows = [stream.row for stream in progress.streams]
        choice = search.advance(self.arena.log_probabilities[rows])
        if choice is None:
            return False
        self.arena.gather(rows, [rows[parent] for parent in choice.parents])
        self.arena.controls["token"][rows] = choice.tokens
        return True

    def _answer(self, progress: RequestState, now: float) -> None:
        """The hypotheses of a search that is over, as samples."""
        search = progress.streams[0].search
        assert search is not None, "a beam's rows share one"
        best = search.best()
        self._note_first(progress, now)
        self._sinks.append(progress.sink)
        self._leave(progress)
        progress.running = len(best)
        if not best:
            self._end(progress, FinishReason.END)
        for number, hypothesis in enumerate(best):
            sample = progress.request.first_sample + number
            for position, (token, log_probability) in enumerate(hypothesis.tokens):
                text = self.model.pieces[position > 0][token]
                progress.sink.put(TokenMade(token, text, position, log_probability, sample))
            self._end_sample(
                progress,
                SampleFinished(
                    sample,
                    hypothesis.reason,
                    len(hypothesis.tokens),
                    hypothesis.log_probability,
                    hypothesis.score,
                ),
            )

    # -- leaving -------------------------------------------------------------------------------

    def _pause(self, stream: DecodeSequence) -> None:
        self._save(stream)
        self.arena.give(*self.scheduler.pause(stream))
        self._stop_if_paused(stream.progress)
        self.observer.paused(len(self.scheduler.paused))

    def _preempt(self, stream: DecodeSequence) -> None:
        """Its row is another caller's turn; it goes on from here once it has one again."""
        self._save(stream)
        self.arena.give(*self.scheduler.preempt(stream))
        self._stop_if_paused(stream.progress)
        self.observer.preempted()

    def _save(self, stream: DecodeSequence) -> None:
        stream.token = int(self.arena.controls["token"][stream.row])
        stream.saved = self.arena.save(stream.row)

    def _stop_if_paused(self, progress: RequestState) -> None:
        """Nothing is computed for a request whose streams all wait for their reader, or a row."""
        # Backwards: streams pause in order, so the first one looked at mostly still runs.
        if all(s.phase in _RESTING for s in reversed(progress.streams)):
            self._stops.append((progress.computing, None))

    def _vacate(self, stream: DecodeSequence) -> None:
        moved = self.scheduler.leave(stream)
        if moved:
            self.arena.give(*moved)

    def _leave(self, progress: RequestState) -> None:
        for stream in progress.streams:
            self._vacate(stream)
        progress.running = 0

    def _report(self, progress: RequestState, reason: FinishReason) -> None:
        delivered = sum(delivered_here(stream) for stream in progress.streams)
        made = max(progress.output_tokens, delivered)
        self.observer.finished(reason, self._input_tokens(progress), made)


def delivered_here(stream: DecodeSequence) -> int:
    """Without what an earlier stream, which this one goes on with, had delivered."""
    resumed = stream.progress.request.resumed
    return stream.delivered - (resumed.delivered if resumed else 0)


def _next_stop(made: int, request: GenerateRequest) -> int:
    """The next token that ends a stream which has made so many, or is followed by a checkpoint."""
    every = request.checkpoints.every
    return min(request.max_tokens, made - made % every + every) if every else request.max_tokens
