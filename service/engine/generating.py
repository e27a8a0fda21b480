"""Continuous batching: streams join and leave one batch between the steps of one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from service.engine.arena import Arena, Side, StateSpec
from service.engine.errors import RequestError
from service.engine.randomness import BLOCK, uniform_block
from service.engine.requests import Event, Failed, Finished, FinishReason, Generation, TokenMade
from service.engine.scheduler import Plan, PrimePolicy, Scheduler, Stream
from service.engine.stopping import StopMatcher

State = Mapping[str, NDArray[Any]]
Delivery = tuple[Any, Event]  # (the stream's sink, what it gets)


class Runner(Protocol):
    """The graphs of one model."""

    def attach(self, sides: tuple[Side, Side]) -> None:
        """Learn the arrays that steps read and write."""

    def prime(self, tokens: Sequence[Sequence[int]], states: Sequence[State | None]) -> list[State]:
        """The state after reading each row of tokens from its state (None: the first one)."""

    def step(self, side: int, rows: int) -> None:
        """One token for rows 0 … rows-1, from ``sides[side].inputs`` into its outputs."""


class Observer(Protocol):
    """Hears of each step, once, for the metrics."""

    def stepped(self, rows: int, waiting: int, primed_tokens: int, seconds: float) -> None: ...

    def began(self, queue_seconds: float) -> None: ...

    def first_token(self, seconds: float) -> None: ...

    def tokens_followed(self, count: int, seconds: float) -> None: ...

    def finished(self, reason: FinishReason, input_tokens: int, output_tokens: int) -> None: ...

    def idle(self) -> None:
        """Nothing runs or waits any more."""


@dataclass(frozen=True)
class GenerationModel:
    """What the engine must know of a model.

    begin_id: the token a stream starts with after a whole source; None where it starts with
        the prompt's last token. end_id: the token that ends a stream, None for none.
    pieces: the text of each token id as the first of a stream, and as a later one.
    """

    state: tuple[StateSpec, ...]
    begin_id: int | None
    end_id: int | None
    pieces: tuple[Sequence[str], Sequence[str]]

    @property
    def policy(self) -> PrimePolicy:
        reads_source = self.begin_id is not None
        return PrimePolicy(whole=reads_source, steps_last=not reads_source)


class GenerateEngine:
    """Owns the rows of one model. Used from one thread; knows time only through ``clock``."""

    def __init__(
        self,
        model: GenerationModel,
        runner: Runner,
        capacity: int,
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self.model = model
        self.runner = runner
        self.clock = clock
        self.observer = observer
        self.scheduler = Scheduler(capacity, model.policy)
        self.arena = Arena(model.state, capacity, len(model.pieces[0]))
        self._last_step = 0.0
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

    def open(self, request: Generation, sink: Any) -> Stream:
        """A stream for ``request``; it runs once it has arrived."""
        return Stream(request, sink, StopMatcher(request.stop))

    def arrive(self, stream: Stream) -> None:
        self.scheduler.arrive(stream)

    def cancel(self, stream: Stream) -> None:
        """Free the stream's row, if it still has one; it gets no further event."""
        if not stream.is_gone:
            self._leave(stream)
            self._report(stream, FinishReason.CANCELLED)
            if self.is_idle:
                self.observer.idle()

    def step(self) -> list[Delivery]:
        """Prime what is due, make one token for every row, and say who gets what."""
        started = self.clock()
        plan = self.scheduler.schedule()
        self._prime(plan, started)
        self._admit(plan)
        rows = len(self.scheduler.rows)
        if rows:
            self._draw_uniforms()
            self.runner.step(self.arena.side, rows)
            self.arena.swap()
        return self._commit(plan, rows, started)

    def fail(self, error: RequestError) -> list[Delivery]:
        """Give up every stream; each gets ``error`` as its last event."""
        streams = self.scheduler.everyone()
        for stream in streams:
            self._leave(stream)
        return [(stream.sink, Failed(error)) for stream in streams]

    def _prime(self, plan: Plan, now: float) -> None:
        for stream in plan.begins:
            stream.started = now
            self.observer.began(now - stream.request.arrived)
        if not plan.prime:
            return
        tokens = [chunk.stream.request.tokens[chunk.start : chunk.end] for chunk in plan.prime]
        states = self.runner.prime(tokens, [chunk.stream.state for chunk in plan.prime])
        for chunk, state in zip(plan.prime, states, strict=True):
            chunk.stream.state = state
            self.scheduler.primed(chunk)

    def _admit(self, plan: Plan) -> None:
        for stream in plan.admits:
            row = self.scheduler.admit(stream)
            self.arena.take(row, stream.state)
            stream.state = None
            sampling = stream.request.sampling
            first = self.model.begin_id
            self.arena.control(
                row,
                token=stream.request.tokens[-1] if first is None else first,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
            )

    def _draw_uniforms(self) -> None:
        uniform = self.arena.controls["uniform"]
        for stream in self.scheduler.rows:
            block, place = divmod(stream.made, BLOCK)
            if stream.uniforms is None or place == 0:
                stream.uniforms = uniform_block(stream.request.sampling.seed, 0, block)
            uniform[stream.row] = stream.uniforms[place]

    def _commit(self, plan: Plan, rows: int, started: float) -> list[Delivery]:
        """Hand out the tokens of this step; streams that are done leave."""
        now = self.clock()
        tokens = self.arena.next_token[:rows].tolist()
        log_probabilities = self.arena.log_probability[:rows].tolist()
        self.arena.controls["token"][:rows] = self.arena.next_token[:rows]
        deliveries: list[Delivery] = []
        streams = list(self.scheduler.rows)  # in row order; leaving reorders the rows
        for stream, token, log_probability in zip(streams, tokens, log_probabilities, strict=True):
            self._hand_out(stream, token, log_probability, deliveries, now)
        primed = sum(chunk.end - chunk.start for chunk in plan.prime)
        self.observer.tokens_followed(rows - len(plan.admits), now - self._last_step)
        self.observer.stepped(rows, len(self.scheduler.waiting), primed, now - started)
        self._last_step = now
        if self.is_idle:
            self.observer.idle()
        return deliveries

    def _hand_out(
        self,
        stream: Stream,
        token: int,
        log_probability: float,
        deliveries: list[Delivery],
        now: float,
    ) -> None:
        if stream.made == 0:
            stream.first_token = now
            self.observer.first_token(now - stream.request.arrived)
        if token == self.model.end_id:
            self._finish(stream, FinishReason.END, stream.stops.flush(), deliveries)
            return
        text = self.model.pieces[stream.made > 0][token]
        made = TokenMade(token, text, stream.made, log_probability)
        stream.made += 1
        released, stopped = stream.stops.feed(made)
        if stopped:
            self._finish(stream, FinishReason.STOP, released, deliveries)
        elif stream.made == stream.request.max_tokens:
            released += stream.stops.flush()
            self._finish(stream, FinishReason.LENGTH, released, deliveries)
        else:
            self._deliver(stream, released, deliveries)

    def _deliver(
        self, stream: Stream, released: Sequence[TokenMade], deliveries: list[Delivery]
    ) -> None:
        stream.delivered += len(released)
        deliveries.extend((stream.sink, token) for token in released)

    def _finish(
        self,
        stream: Stream,
        reason: FinishReason,
        released: Sequence[TokenMade],
        deliveries: list[Delivery],
    ) -> None:
        self._deliver(stream, released, deliveries)
        self._leave(stream)
        request = stream.request
        finished = Finished(
            reason,
            len(request.tokens),
            stream.delivered,
            stream.started - request.arrived,
            stream.first_token - request.arrived if stream.delivered else 0.0,
        )
        deliveries.append((stream.sink, finished))
        self._report(stream, reason)

    def _leave(self, stream: Stream) -> None:
        moved = self.scheduler.leave(stream)
        if moved:
            self.arena.give(*moved)

    def _report(self, stream: Stream, reason: FinishReason) -> None:
        self.observer.finished(reason, len(stream.request.tokens), stream.delivered)
