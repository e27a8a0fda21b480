"""Decoding: streams whose next token is drawn from the last one, and single look-ahead steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import ATTENTION
from service.engine.automaton import ConstrainedText
from service.engine.beam_search import BeamSearch
from service.engine.errors import RequestError
from service.engine.finiteness import broken_rows
from service.engine.first_tokens import FirstTokens
from service.engine.logits_processor import LogitsProcessor
from service.engine.open_work import Ahead
from service.engine.prefill import PrefillBudget
from service.engine.prefix_tree import ID_BYTES, path_of
from service.engine.prefixes import BETWEEN_TOKENS, LEAST_TOKENS, Prefixes, PrefixLookup
from service.engine.requests import (
    LIKELIEST,
    Beam,
    Checkpoint,
    Event,
    Failed,
    FinishReason,
    GenerateRequest,
    NextTokenDistribution,
    NextTokenRequest,
    SampleFinished,
    Sink,
    Snapshot,
    State,
    TokenMade,
    TokensMade,
)
from service.engine.rng import key_of
from service.engine.scheduler import NO_ROW, Phase, Prompt
from service.engine.shares import NOBODY, Share
from service.engine.slots import StateStore
from service.engine.step_engine import (
    GenerationModel,
    Observer,
    RequestState,
    Runner,
    StepSequence,
    TokenEngine,
)
from service.engine.stop_strings import StopMatcher
from service.engine.throughput import Throughput
from service.engine.token_columns import TokenColumns

# Ends by which streams show how much they make of what they may.
_COMPLETE = (
    FinishReason.END, FinishReason.STOP, FinishReason.LENGTH, FinishReason.UNFINISHED,
)  # fmt: skip


@dataclass(eq=False, slots=True, kw_only=True)
class DecodeSequence(StepSequence):
    """One sample of a request, or one row of its beam search.

    is_plain: every token goes out as it is, with nothing to look up, hold back, count or report.
    until: of a plain one that has made its first token, the number of the one that ends it or is
    followed by a checkpoint; else 0. Before that, nothing but a message is ever due: after a step
    little of Python is left in the caches, and each object that is touched costs. start: the state
    before its first step, where that is what is asked for.
    """

    progress: Generation
    stops: StopMatcher | None = None
    adjustments: LogitsProcessor | None = None
    search: BeamSearch | None = None
    is_plain: bool = True
    until: int = 0
    start: State | None = None


# Requests of the engine, and one of them while it runs.
Decodable = GenerateRequest | NextTokenRequest
Generation = RequestState[DecodeSequence, Decodable]


class GenerateEngine(TokenEngine[DecodeSequence, Decodable]):
    """Draws tokens, singly or by beam search, and says what may come next."""

    def __init__(
        self,
        model: GenerationModel,
        runner: Runner,
        capacity: int,
        clock: Callable[[], float],
        observer: Observer,
        prefill_budget: PrefillBudget | None = None,
        rows: StateStore | None = None,
        prefixes: Prefixes | None = None,
        first_tokens: FirstTokens | None = None,
    ) -> None:
        """prefixes: of prompts and sources; None to read each as a whole."""
        super().__init__(model, runner, capacity, clock, observer, prefill_budget, rows)
        self._throughput = Throughput()
        self._columns = TokenColumns(model.end_id)
        self.prefixes = prefixes
        self._first_tokens = first_tokens
        self._has_drawn_first = False  # since everybody's last step

    def warm_prefill(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Prefill batches of these (prompts, tokens) once; the cost of each is learned too."""
        for rows, length in shapes:
            started = self.clock()
            self.runner.prefill([[0] * length] * rows, [None] * rows)
            self.scheduler.cost.observe(rows, length, self.clock() - started)

    # -- from the thread: open, arrive ---------------------------------------------------------

    @staticmethod
    def open(request: Decodable, sink: Sink[Event], share: Share = NOBODY) -> Generation:
        """``request`` as the engine knows it; on any thread, since it touches no engine."""
        return RequestState(
            request,
            sink,
            request.arrived,
            request.streams,
            share,
            request.checkpoints,
            request.resumed is not None,
        )

    def arrive(self, progress: Generation) -> None:
        """Its streams wait for rows from now on."""
        progress.streams.extend(self._begin_streams(progress))
        self.prefill_budget.newcomer()
        for stream in progress.streams:
            self.scheduler.arrive(stream)

    def _begin_streams(self, progress: Generation) -> list[DecodeSequence]:
        request = progress.request
        prompt = Prompt(self._to_prefill(request), request.streams)
        if isinstance(request, NextTokenRequest):
            prompt.state = request.start
            return [self._look_ahead(progress, request, prompt)]
        if request.start:
            prompt.state, prompt.prefilled = request.start.state, request.start.read
            progress.cached_tokens = request.start.read
        search = self._search(request, request.beam) if request.beam else None
        streams = [self._stream(progress, request, prompt, n) for n in range(request.streams)]
        for stream in streams:
            stream.search = search
        return streams

    def _to_prefill(self, request: Decodable) -> Sequence[int]:
        """A prompt's last token goes through the step; a resumed one was read long ago."""
        if self.model.reads_source:
            return request.tokens
        return () if request.resumed else request.tokens[:-1]

    def _first_token(self, tokens: Sequence[int]) -> int:
        """What a stream reads first after ``tokens``."""
        return tokens[-1] if self.model.begin_id is None else self.model.begin_id

    def _look_ahead(
        self, progress: Generation, request: NextTokenRequest, prompt: Prompt
    ) -> DecodeSequence:
        token = request.token
        return DecodeSequence(
            prompt,
            share=progress.share,
            progress=progress,
            sink=progress.sink,
            sampling=LIKELIEST,
            token=self._first_token(request.tokens) if token is None else token,
            is_plain=False,
        )

    def _stream(
        self, progress: Generation, request: GenerateRequest, prompt: Prompt, number: int
    ) -> DecodeSequence:
        resumed = request.resumed
        stream = DecodeSequence(
            prompt,
            group=request.beam.width if request.beam else 1,
            share=progress.share,
            progress=progress,
            sink=progress.sink,
            sampling=request.sampling,
            key=key_of(request.sampling.seed, request.digest),
            sample=request.first_sample + number,
            token=resumed.token if resumed else self._first_token(request.tokens),
            made=resumed.made if resumed else 0,
            delivered=resumed.delivered if resumed else 0,
            delivered_before=resumed.delivered if resumed else 0,
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
                _constrained(request),
            )
        stream.is_plain = not (stream.stops or stream.adjustments or request.top or request.watch)
        return stream

    def _search(self, request: GenerateRequest, beam: Beam) -> BeamSearch:
        masked = np.zeros(self.model.vocabulary)
        LogitsProcessor(request.sampling, (), {}, None, 0).fill(masked, masked, 0)
        masked[list(self.model.never_sampled_ids)] = -np.inf
        return BeamSearch(
            beam,
            request.max_tokens,
            request.min_tokens,
            self.model.end_id,
            masked,
            _constrained(request),
        )

    def cost(self, request: Decodable) -> float:
        """Tokens that it will make, by how much of what they may others made."""
        if isinstance(request, NextTokenRequest):
            return 1.0
        left = request.max_tokens - (request.resumed.made if request.resumed else 0)
        return request.streams * left * self._throughput.made_share

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        scheduler = self.scheduler
        if scheduler.free_rows > scheduler.queue_length + coming:
            return 0.0
        return self._throughput.wait_seconds(ahead, scheduler.capacity)

    def hand_over(self, error: RequestError) -> list[Sink[Event]]:
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
            progress.output_tokens += sum(stream.delivered_here for stream in unfinished)
            self._end(progress, FinishReason.HANDED_OVER)
        self._report_answered()
        self.observer.paused(len(self.scheduler.paused))
        self.observer.idle()
        return [progress.sink for progress in requests]

    def _last_checkpoints(
        self, progress: Generation, unfinished: Sequence[DecodeSequence]
    ) -> list[Checkpoint]:
        """Where each of the streams is; none for a request that cannot go on elsewhere."""
        request = progress.request
        if isinstance(request, NextTokenRequest) or request.beam:
            return []
        if not progress.checkpoints.on_stop:
            return []
        if any(self._where(stream, request) is None for stream in unfinished):
            return []
        return [self._checkpoint(stream) for stream in unfinished]

    # -- prefixes ------------------------------------------------------------------------------

    def _look_up(self, stream: DecodeSequence) -> None:
        """What was read before of a stream's input need not be read again.

        Only now: others that came with it may have read it while it waited. The samples of one
        request share what the first of them finds.
        """
        prompt, progress = stream.prompt, stream.progress
        prefixes, whole = self.prefixes, self.model.reads_source
        if prefixes is None:
            return
        is_short = len(prompt.tokens) < (1 if whole else LEAST_TOKENS)
        if is_short or prompt.lookup or prompt.state is not None or progress.request.no_cache:
            return
        caller, path = progress.share.caller, path_of(prompt.tokens)
        found = prefixes.find(caller, path, whole)
        prompt.lookup = PrefixLookup(caller, path, found.count)
        if found.state is not None:
            prompt.state = found.state
            prompt.prefilled = prompt.cached = progress.cached_tokens = found.count
        if not whole and found.shared - found.count >= LEAST_TOKENS:
            prompt.cut = found.shared
        self.observer.prefix_found(found.count)

    def _keep_prefix(self, prompt: Prompt, lookup: PrefixLookup) -> None:
        """At its end, where other prompts went on otherwise, and now and then between."""
        read, state = prompt.prefilled, prompt.state
        is_a_place = not prompt.left or read == prompt.cut
        least = LEAST_TOKENS if is_a_place else BETWEEN_TOKENS
        if not (self.model.reads_source or read - lookup.kept >= least):
            return
        if self.prefixes is not None and state is not None:
            self.prefixes.keep(lookup.caller, lookup.path[: read * ID_BYTES], state)
            lookup.kept = read

    # -- one step ------------------------------------------------------------------------------

    def _first_state(self, stream: DecodeSequence) -> State | None:
        prompt, resumed = stream.prompt, stream.progress.request.resumed
        state = prompt.state
        prompt.unserved -= 1
        if not prompt.unserved:
            prompt.state = None  # nobody needs it any more
        return {**(state or {}), **resumed.state} if resumed else state

    def _load(self, stream: DecodeSequence) -> None:
        super()._load(stream)
        self._columns.admit()
        request = stream.progress.request
        if isinstance(request, NextTokenRequest) and request.keeps_start:
            stream.start = self.slots.save(stream.row)
        if stream.adjustments:
            bias, seen = self._rows(stream)
            stream.adjustments.fill(bias, seen, stream.made)

    def _give(self, row: int, last: int) -> None:
        super()._give(row, last)
        self._columns.give(row, last)

    def _made(self, stream: DecodeSequence) -> int:
        return stream.made + self._columns.count(stream.row)

    def _take(self, stream: DecodeSequence) -> None:
        if stream.until and self._columns.count(stream.row):
            self._take_before(stream, 0)

    def _preempt(self, stream: DecodeSequence) -> None:
        self._take(stream)
        self._sinks.append(stream.sink)
        super()._preempt(stream)

    def _measured(self, seconds: float) -> None:
        self._has_drawn_first = False
        self._throughput.stepped(self.scheduler.rows, seconds)

    def _rows(self, stream: DecodeSequence) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.slots.adjust(stream.row)

    def _reports(self, stream: DecodeSequence) -> bool:
        request = stream.progress.request
        if isinstance(request, NextTokenRequest) or request.top or request.beam:
            return True
        return request.watch is not None and ATTENTION in request.watch.tensors

    def _draw_first(self, streams: Sequence[DecodeSequence]) -> int:
        if self._has_drawn_first or not self._may_draw_first(streams):
            return 0
        first = self._first_tokens
        assert first is not None, "who may draw first has a batch for it"
        self._has_drawn_first = True
        for stream in streams:
            self._start_computing(stream.progress)
            stream.saved = self._first_state(stream)
        began = self.clock()
        drawn = first.draw(streams, self.clock)
        now = self.clock()
        self.prefill_budget.spend(now - began)
        log_probabilities = [known for _, known in drawn]
        broken = {streams[row].progress for row in broken_rows(log_probabilities)}
        for stream, (token, log_probability) in zip(streams, drawn, strict=True):
            if stream.progress in broken:
                continue
            self._sinks.append(stream.sink)
            reason = self._hand_out(stream, token, log_probability, now)
            if reason:
                self._finish(stream, reason)
                continue
            self._admit(stream)
            if stream.sink.mark_if_full():
                self._pause(stream)
        self._fail_alone(broken)
        return len(streams)

    def _may_draw_first(self, streams: Sequence[DecodeSequence]) -> bool:
        """Whether a step for them alone is worth its time, and what they want is no more than a
        token: others wait for that step too."""
        first, scheduler = self._first_tokens, self.scheduler
        if first is None or not (streams and scheduler.rows) or scheduler.queue_length:
            return False
        return first.is_worth(len(streams), self.prefill_budget.step_seconds) and all(
            stream.is_plain and not stream.search and stream.saved is None for stream in streams
        )

    def _commit(self, rows: int, now: float) -> None:
        """Hand out what is due after this step; then streams that are done or held up leave."""
        columns = self._columns
        tokens, log_probabilities = self.slots.drawn(rows)
        broken_ones = broken_rows(log_probabilities)
        broken = self._requests_of(broken_ones) if broken_ones else ()
        due = columns.add(tokens, log_probabilities)
        if not (due or broken):
            return
        if broken:
            for stream in (s for progress in broken for s in progress.streams if s.row != NO_ROW):
                self._take_before(stream, 1)
        end_id, pieces, sinks = self.model.end_id, self.model.pieces[1], self._sinks
        streams = self.scheduler.rows
        done: list[tuple[DecodeSequence, FinishReason]] = []
        behind: list[DecodeSequence] = []
        searches: dict[BeamSearch, Generation] = {}
        for row in due:
            stream, token = streams[row], tokens[row]
            sink, made, count = stream.sink, stream.made, columns.count(row)
            if broken and stream.progress in broken:
                continue
            reason = None
            if made + count >= stream.until or token == end_id:
                if stream.search:
                    searches[stream.search] = stream.progress
                    stream.made += 1
                    columns.take(row)
                    continue
                self._take_before(stream, 1)
                reason = self._hand_out(stream, token, log_probabilities[row], now)
            elif count == 1:
                # What _take_before() does, for most tokens that come one by one.
                stream.made = made + 1
                stream.delivered += 1
                stream.log_probability += (known := log_probabilities[row])
                sink.put(TokenMade(token, pieces[token], made, known, stream.sample))
            else:
                self._take_before(stream, 0)
            sinks.append(sink)
            if reason:
                done.append((stream, reason))
            elif sink.mark_if_full():
                behind.append(stream)
            at_once, left = sink.tokens_at_once, stream.until - stream.made
            columns.take(row, at_once if at_once < left else left)
        columns.settle()
        # Rows move when a stream leaves, so what this step computed is read before.
        if searches:
            answered = [p for search, p in searches.items() if not self._goes_on(search, p)]
            for progress in answered:
                self._answer(progress, now)
        for stream, reason in done:
            self._finish(stream, reason)
        for stream in behind:
            self._pause(stream)
        if broken:
            self._fail_alone(broken)

    def _take_before(self, stream: DecodeSequence, last: int) -> None:
        """Hand out what a stream has made, but for so many of the last tokens."""
        tokens, known = self._columns.read(stream.row)
        self._columns.take(stream.row)
        count = len(tokens) - last
        if not count:
            return
        made, total = stream.made, stream.log_probability
        pieces = self.model.pieces[1]
        stream.sink.put(TokensMade(tokens[:count], known[:count], made, stream.sample, pieces))
        stream.made = made + count
        stream.delivered += count
        for log_probability in known[:count]:
            total += log_probability
        stream.log_probability = total

    def _hand_out(
        self, stream: DecodeSequence, token: int, log_probability: float, now: float
    ) -> FinishReason | None:
        """One token of one stream; returns why the stream ends, if it does."""
        request = stream.progress.request
        if isinstance(request, NextTokenRequest):
            known = self.slots.log_probabilities[stream.row].copy()
            state = self.slots.save(stream.row) if stream.start is None else stream.start
            stream.sink.put(NextTokenDistribution(known, state))
            return FinishReason.READ
        self._note_first(stream.progress, now)
        stream.log_probability += log_probability
        position = stream.made
        stream.made += 1
        if stream.is_plain:
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
            self._watched(stream.row, request.watch) if request.watch else b"",
        )
        if stream.adjustments:
            stream.adjustments.follow(token, *self._rows(stream), stream.made)
        released, stopped = [made], False
        if stream.stops and stream.made > request.min_tokens:
            released, stopped = stream.stops.feed(made)
        self._deliver(stream, released)
        if stopped:
            return FinishReason.STOP
        text = stream.adjustments.text if stream.adjustments else None
        if stream.made == request.max_tokens or (text and text.is_complete):
            self._deliver(stream, stream.stops.flush() if stream.stops else [])
            return _reason(text)
        every = request.checkpoints.every
        if every and stream.made % every == 0:
            stream.sink.put(self._checkpoint(stream))
        return None

    def _deliver(self, stream: DecodeSequence, released: Sequence[TokenMade]) -> None:
        stream.delivered += len(released)
        for made in released:
            stream.progress.sink.put(made)

    def _checkpoint(self, stream: DecodeSequence) -> Checkpoint:
        """Where a stream is, after what the last step drew for it; its input must be read."""
        request = stream.progress.request
        assert isinstance(request, GenerateRequest), "a look-ahead has nowhere to go on from"
        if stream.phase is Phase.RUNNING:
            self._take(stream)
        where = self._where(stream, request)
        assert where is not None, "its input is read"
        return Checkpoint(stream.sample, self._snapshot(stream, request, *where))

    def _snapshot(
        self, stream: DecodeSequence, request: GenerateRequest, token: int, state: State
    ) -> Snapshot:
        needs_tokens = self.model.reads_source or request.sampling.repetition_penalty != 1.0
        resumed = request.resumed
        text = stream.adjustments.text if stream.adjustments else None
        return Snapshot(
            sampling=request.sampling,
            digest=request.digest,
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
            changed=resumed.changed if resumed else "",
            constrained=text.place if text else None,
        )

    def _where(self, stream: DecodeSequence, request: GenerateRequest) -> tuple[int, State] | None:
        """The token that a stream reads next, and its carried state; None before it has one."""
        if stream.phase is Phase.RUNNING:
            token = int(self.slots.controls["token"][stream.row])
            return token, self.slots.save_carried(stream.row)
        resumed, state = request.resumed, stream.saved
        if state is None and resumed:
            state = resumed.state
        elif state is None and not stream.prompt.left:
            state = stream.prompt.state or self._zeros
        if state is None:
            return None
        return stream.token, {
            spec.name: state[spec.name] for spec in self.model.state if spec.carried
        }

    def _vacate(self, stream: DecodeSequence) -> None:
        super()._vacate(stream)
        request = stream.progress.request
        constraint = None if isinstance(request, NextTokenRequest) else request.constraint
        if constraint and all(each.phase is Phase.GONE for each in stream.progress.streams):
            constraint.release()

    def _end(self, progress: Generation, reason: FinishReason) -> None:
        request = progress.request
        if reason in _COMPLETE and isinstance(request, GenerateRequest):
            count = request.beam.best if request.beam else request.samples
            self._throughput.ended(progress.output_tokens / (count * request.max_tokens))
        super()._end(progress, reason)

    def _input_tokens(self, progress: Generation) -> int:
        request = progress.request
        return request.resumed.input_tokens if request.resumed else len(request.tokens)

    # -- beams ---------------------------------------------------------------------------------

    def _goes_on(self, search: BeamSearch, progress: Generation) -> bool:
        """Choose how a beam's rows go on, and move their states accordingly."""
        rows = [stream.row for stream in progress.streams]
        choice = search.advance(self.slots.log_probabilities[rows])
        if choice is None:
            return False
        self.slots.gather(rows, [rows[parent] for parent in choice.parents])
        self.slots.controls["token"][rows] = choice.tokens
        return True

    def _answer(self, progress: Generation, now: float) -> None:
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
            sample = progress.streams[0].sample + number
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


def _constrained(request: GenerateRequest) -> ConstrainedText | None:
    """Where the text of a stream begins, or goes on."""
    if not request.constraint:
        return None
    place = request.resumed.constrained if request.resumed else None
    return ConstrainedText(request.constraint, request.min_tokens, place.state if place else 0)


def _reason(text: ConstrainedText | None) -> FinishReason:
    """Of a stream that has made all its tokens, or all that its constraint asks for."""
    if text and text.is_complete:
        return FinishReason.END
    return FinishReason.LENGTH if not text or text.may_end else FinishReason.UNFINISHED


def _next_stop(made: int, request: GenerateRequest) -> int:
    """The next token that ends a stream which has made so many, or is followed by a checkpoint."""
    every = request.checkpoints.every
    return min(request.max_tokens, made - made % every + every) if every else request.max_tokens
