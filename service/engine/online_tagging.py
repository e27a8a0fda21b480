"""Online tagging: streams whose callers push the tokens; each step labels one of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.engine.errors import RequestError
from service.engine.finiteness import broken_rows
from service.engine.open_work import Ahead
from service.engine.requests import (
    CAUGHT_UP,
    LIKELIEST,
    Checkpoint,
    Event,
    FinishReason,
    Sink,
    TagRequest,
    TagSnapshot,
    TokenMade,
)
from service.engine.scheduler import Phase, Prompt
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

# So many tokens after another a stream gets where others wait for its row: it may never end.
TURN = 256


@dataclass(eq=False, slots=True, kw_only=True)
class PushedSequence(StepSequence):
    """inbox: ids that were pushed and are not read yet. is_closed: no further ones come.

    ends_as: why it ends once it is closed.
    is_held_up: its reader is behind.
    pushed_at: when what it reads now was pushed, since it last had nothing to read; None between.
    waited: from then until its row, in seconds; None before that.
    """

    progress: Tagging
    inbox: deque[int] = field(default_factory=deque)
    is_closed: bool = False
    ends_as: FinishReason = FinishReason.CLOSED
    is_held_up: bool = False
    pushed_at: float | None = None
    waited: float | None = None


# A request while it runs; it has one stream.
Tagging = RequestState[PushedSequence, TagRequest]


class OnlineTagEngine(TokenEngine[PushedSequence, TagRequest]):
    """An engine whose next token is the caller's, not the one just made.

    A stream holds a row only while it has tokens to read and its sink has room; without
    either it pauses and keeps its state. The model's ``pieces`` are its labels.
    """

    def __init__(
        self,
        model: GenerationModel,
        runner: Runner,
        capacity: int,
        clock: Callable[[], float],
        observer: Observer,
        rows: StateStore | None = None,
    ) -> None:
        super().__init__(model, runner, capacity, clock, observer, rows=rows)
        self._closed: list[PushedSequence] = []  # that end without another token

    @property
    def is_idle(self) -> bool:
        return self.scheduler.is_idle and not self._closed

    # -- from the thread: open, arrive, push, close_input, resume ------------------------------

    @staticmethod
    def open(request: TagRequest, sink: Sink[Event], share: Share = NOBODY) -> Tagging:
        """``request`` as the engine knows it; on any thread, since it touches no engine."""
        is_resumed = request.resumed is not None
        return RequestState(
            request, sink, request.arrived, 1, share, request.checkpoints, is_resumed
        )

    def cost(self, request: TagRequest) -> float:
        """Nothing: nobody knows how much its caller will push."""
        return 0.0

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        """None: a row changes hands after a turn."""
        return 0.0

    def arrive(self, progress: Tagging) -> None:
        """Its stream begins with the first token that is pushed."""
        resumed = progress.request.resumed
        made = resumed.made if resumed else 0
        stream = PushedSequence(
            Prompt(()),
            saved=resumed.state if resumed else self._zeros,
            share=progress.share,
            progress=progress,
            sink=progress.sink,
            sampling=LIKELIEST,
            made=made,
            delivered=made,
            delivered_before=made,
        )
        progress.streams.append(stream)
        self.scheduler.park(stream)
        self._report_paused()

    def push(self, progress: Tagging, tokens: Sequence[int], arrived: float) -> None:
        """arrived: when they came, on the engine's clock; the first ones begin the stream."""
        if not progress.streams:  # it was rejected
            return
        stream = progress.streams[0]
        if progress.started is None and not stream.inbox:
            progress.arrived = arrived
        if tokens and stream.pushed_at is None:
            stream.pushed_at = arrived
        stream.inbox.extend(tokens)
        self._go_on(stream)

    def close_input(self, progress: Tagging, is_handed_over: bool = False) -> None:
        """No further tokens come: the stream ends once those that it has are answered.

        is_handed_over: further ones go elsewhere, so it says where it is then.
        """
        if not progress.streams or progress.streams[0].is_closed:
            return
        stream = progress.streams[0]
        stream.is_closed = True
        if is_handed_over:
            stream.ends_as = FinishReason.HANDED_OVER
        if stream.phase is Phase.PAUSED and not stream.inbox:
            self._closed.append(stream)

    def resume(self, progress: Tagging) -> None:
        if not progress.streams:
            return
        stream = progress.streams[0]
        stream.is_held_up = False
        self._go_on(stream)

    def _go_on(self, stream: PushedSequence) -> None:
        """Wait for a row, if nothing else is to be waited for."""
        if stream.phase is Phase.PAUSED and stream.inbox and not stream.is_held_up:
            self.scheduler.resume(stream)
            self._report_paused()

    def hand_over(self, error: RequestError) -> list[Sink[Event]]:
        """Nothing: what their callers have sent is answered, then they close their streams."""
        return []

    # -- one step ------------------------------------------------------------------------------

    def step(self) -> list[Sink[Event]]:
        self._finish_closed()
        return super().step()

    def _finish_closed(self) -> None:
        """End the streams whose last token was answered before they were closed."""
        closed, self._closed = self._closed, []
        left = [stream for stream in closed if stream.phase is Phase.PAUSED]
        for stream in left:
            self._finish(stream, stream.ends_as)
            self._sinks.append(stream.sink)
            self._report_paused()

    def _admit(self, stream: PushedSequence) -> None:
        progress = stream.progress
        if progress.started is None:
            progress.started = self.clock()
            self.observer.began(progress.started - progress.arrived, progress.is_resumed)
        if stream.waited is None and stream.pushed_at is not None:
            stream.waited = self.clock() - stream.pushed_at
        stream.token = stream.inbox.popleft()
        super()._admit(stream)

    def _preempt(self, stream: PushedSequence) -> None:
        super()._preempt(stream)
        stream.inbox.appendleft(stream.token)  # it was to be read in this step

    def _commit(self, rows: int, now: float) -> None:
        """Answer each row's token and give it its next; streams without one leave."""
        slots, others_wait = self.slots, self.scheduler.has_returning
        labels = slots.next_token[:rows].tolist()
        log_probabilities = slots.log_probability[:rows].tolist()
        leaving: list[PushedSequence] = []
        broken = self._requests_of(broken_rows(log_probabilities))
        for row, stream in enumerate(self.scheduler.rows):
            if stream.progress in broken:
                continue
            self._answer_token(stream, labels[row], log_probabilities[row], now)
            if self._stays(stream, others_wait):
                labels[row] = stream.inbox.popleft()  # what this row reads next
            else:
                leaving.append(stream)
        slots.controls["token"][:rows] = labels
        for stream in leaving:
            self._step_aside(stream)
        self._fail_alone(broken)

    def _answer_token(
        self, stream: PushedSequence, label: int, log_probability: float, now: float
    ) -> None:
        request, position = stream.progress.request, stream.made
        self._note_first(stream.progress, now)
        stream.made = stream.delivered = position + 1
        stream.log_probability += log_probability
        top = self._likeliest(stream.row, request.top) if request.top else ()
        text = self.model.pieces[0][label]
        state = self._watched(stream.row, request.watch) if request.watch else b""
        stream.sink.put(TokenMade(label, text, position, log_probability, 0, top, state))
        every = request.checkpoints.every
        if every and stream.made % every == 0:
            stream.sink.put(self._checkpoint(stream))
        self._sinks.append(stream.sink)

    def _reports(self, stream: PushedSequence) -> bool:
        return bool(stream.progress.request.top)

    def _stays(self, stream: PushedSequence, others_wait: bool) -> bool:
        # Asked each time: a sink that said so wakes the engine once it has room again.
        stream.is_held_up = stream.sink.mark_if_full()
        is_over = others_wait and stream.made % TURN == 0
        return bool(stream.inbox) and not stream.is_held_up and not is_over

    def _step_aside(self, stream: PushedSequence) -> None:
        if not stream.inbox:
            self._note_turn(stream)
            if stream.is_closed:
                self._finish(stream, stream.ends_as)
                return
            stream.sink.put(CAUGHT_UP)
        self._pause(stream)
        self._go_on(stream)

    def _note_turn(self, stream: PushedSequence) -> None:
        """All that was pushed is answered. A stream may live for ever, so each turn counts."""
        self._note_times(stream.progress, stream.waited or 0.0)
        stream.pushed_at = stream.waited = None

    def _note_answered(self, progress: Tagging) -> None:
        """Its turns were noted one by one."""

    def _checkpoint(self, stream: PushedSequence) -> Checkpoint:
        """Where a running or paused stream is, after the last token that was answered."""
        state = self.slots.save_carried(stream.row) if stream.saved is None else stream.saved
        resumed = stream.progress.request.resumed
        changed = resumed.changed if resumed else ""
        return Checkpoint(stream.sample, TagSnapshot(stream.made, state, changed))

    def _input_tokens(self, progress: Tagging) -> int:
        return progress.streams[0].delivered_here

    def _report_paused(self) -> None:
        self.observer.paused(len(self.scheduler.paused))
