"""Stepping: streams whose callers push frames of numbers; each step takes one of every stream that
has one.

A stream keeps its state in a row of a table (``state_rows.py``) and takes part in a step only when
it has something to read, so that silent streams cost nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.errors import EngineFailed, RequestError, WrongInput
from service.engine.finiteness import not_finite
from service.engine.open_work import Ahead
from service.engine.ready_queue import ReadyQueue
from service.engine.requests import (
    Checkpoint,
    Event,
    Failed,
    Finished,
    FinishReason,
    FrameAnswered,
    Sink,
    StepRequest,
    StepSnapshot,
)
from service.engine.shares import NOBODY, Share
from service.engine.state_rows import StateRows, broken_rows_of
from service.engine.watching import packed
from service.step_model import StepModel

Array = NDArray[Any]

# The place of a stream's choice of what steps share, in its snapshot.
_SHARED = "shared"


class Runner(Protocol):
    """The graph of one model."""

    def attach(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Learn the arrays that steps read and write."""

    def step(self, rows: int, shared: int) -> None:
        """Step rows 0 … rows-1 of these arrays, with that choice of what they share."""


class Observer(Protocol):
    """Records each step, once, for the metrics; see step_engine.Observer for what is there, too."""

    def stepped(
        self, rows: int, waiting: int, prefill_tokens: int, seconds: float, prefill_seconds: float
    ) -> None: ...

    def framed(self, seconds: Sequence[float], late: int, skipped: int) -> None:
        """Frames were answered so long after they came, so many of them late or skipped."""

    def began(self, queue_seconds: float, is_resumed: bool) -> None: ...

    def answered(self, queue_seconds: float, compute_seconds: float) -> None: ...

    def first_token(self, seconds: float) -> None: ...

    def paused(self, count: int) -> None: ...

    def finished(self, reason: FinishReason, input_tokens: int, output_tokens: int) -> None: ...

    def not_finite(self) -> None: ...

    def idle(self) -> None:
        """No stream is open any more."""


@dataclass(eq=False, slots=True)
class Frame:
    """values: of each of the model's inputs, the bytes of all its steps one after the other.

    arrived: when it came, deadline: when it is late, on the engine's clock in seconds. is_optional:
    whether it is skipped once that has passed. resets: whether the state is the first one again
    before it.
    """

    values: tuple[bytes, ...]
    steps: int
    arrived: float
    deadline: float = math.inf
    is_optional: bool = False
    resets: bool = False

    @property
    def size(self) -> int:
        return sum(map(len, self.values))


@dataclass(eq=False, slots=True)
class FrameStream:
    """A stream while it runs.

    inbox: frames that are not answered, the first of which may be under way. step: of that one,
    those that were taken. parts: what they gave, by output. answered, steps, late, skipped: frames
    and steps of this call. position: of the next frame to be answered. is_ready: waits for a step.
    is_held_up: its reader is behind. Times as those of step_engine.RequestState.
    """

    request: StepRequest
    sink: Sink[Event]
    arrived: float
    share: Share = NOBODY
    row: int = -1
    inbox: deque[Frame] = field(default_factory=deque)
    step: int = 0
    parts: list[list[bytes]] = field(default_factory=list)
    position: int = 0
    answered: int = 0
    steps: int = 0
    late: int = 0
    skipped: int = 0
    is_ready: bool = False
    is_held_up: bool = False
    is_closed: bool = False
    ends_as: FinishReason = FinishReason.CLOSED
    is_over: bool = False
    started: float | None = None
    prefilled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0

    @property
    def wants_step(self) -> bool:
        return not self.is_over


class FrameEngine:
    """Steps the streams of one model. Used from one thread; knows time only through ``clock``.

    capacity: rows of a step at most. name: of the model, for error messages.
    """

    batching_delay = 0.0  # frames were gathered before they came here (serving/frame_gatherer.py)
    waits_for = "a step"

    def __init__(
        self,
        name: str,
        model: StepModel,
        runner: Runner,
        capacity: int,
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self.name = name
        self.model = model
        self.runner = runner
        self.capacity = capacity
        self.clock = clock
        self.observer = observer
        self.rows = StateRows(model.state, capacity)
        self._frames = {p.name: np.zeros((capacity, *p.shape), p.dtype) for p in model.inputs}
        self._answers = {p.name: np.zeros((capacity, *p.shape), p.dtype) for p in model.outputs}
        # With the bytes of a row of each.
        self._staged = [
            (self._frames[port.name].reshape(-1).view(np.uint8).data, port.row_bytes)
            for port in model.inputs
        ]
        self._given = [(self._answers[port.name], port.row_bytes) for port in model.outputs]
        runner.attach({**self._frames, **self.rows.inputs}, {**self._answers, **self.rows.outputs})
        self._ready: ReadyQueue[FrameStream] = ReadyQueue(lambda stream: stream.wants_step)
        self._open: dict[FrameStream, None] = {}
        self._closed: list[FrameStream] = []  # that end without another frame
        self._sinks: list[Sink[Event]] = []  # that got something in this step
        # Of the frames answered in this step: the seconds they took, how many were late or skipped.
        self._took: list[float] = []
        self._late = self._skipped = 0

    @property
    def is_idle(self) -> bool:
        return not (len(self._ready) or self._closed)

    def warm(self, sizes: Sequence[int], choices: int) -> None:
        """Step batches of these sizes with each choice of what is shared: first runs allocate."""
        for rows in sizes:
            if rows <= self.capacity:
                for shared in range(choices):
                    self.runner.step(rows, shared)

    # -- from the event loop -------------------------------------------------------------------

    @staticmethod
    def open(request: StepRequest, sink: Sink[Event], share: Share = NOBODY) -> FrameStream:
        """``request`` as the engine knows it; on any thread, since it touches no engine."""
        return FrameStream(request, sink, request.arrived, share)

    def cost(self, request: StepRequest) -> float:
        """Nothing: nobody knows how much its caller will push."""
        return 0.0

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        """None: each step takes whoever is ready."""
        return 0.0

    # -- from the thread -----------------------------------------------------------------------

    def arrive(self, stream: FrameStream) -> None:
        """Its frames come later."""
        resumed = stream.request.resumed
        if resumed:
            stream.position = resumed.made
        stream.row = self.rows.take(resumed.state if resumed else None)
        self._open[stream] = None
        stream.parts = [[] for _ in self.model.outputs]

    def reject(self, stream: FrameStream, error: RequestError) -> list[Sink[Event]]:
        stream.is_over = True
        stream.sink.put(Failed(error))
        return [stream.sink]

    def push(self, pushed: Sequence[tuple[FrameStream, Frame]]) -> None:
        """Frames as they came, of any streams."""
        for stream, frame in pushed:
            if stream.is_over:
                continue
            if stream.started is None and not stream.inbox:
                stream.arrived = frame.arrived
            stream.inbox.append(frame)
            self._go_on(stream)

    def close_input(self, stream: FrameStream, is_handed_over: bool = False) -> None:
        """No further frames come: the stream ends once those that it has are answered.

        is_handed_over: further ones go elsewhere, so it says where it is then.
        """
        if stream.is_over or stream.is_closed:
            return
        stream.is_closed = True
        if is_handed_over:
            stream.ends_as = FinishReason.HANDED_OVER
        if not stream.inbox:
            self._closed.append(stream)

    def resume(self, stream: FrameStream) -> None:
        """The reader has caught up."""
        stream.is_held_up = False
        self._go_on(stream)

    def cancel(self, stream: FrameStream) -> None:
        """Free its row, if it still has one; it gets no further event."""
        if not stream.is_over:
            self._end(stream, FinishReason.CANCELLED)
            if not self._open:
                self.observer.idle()

    def hand_over(self, error: RequestError) -> list[Sink[Event]]:
        """Nothing: what their callers have sent is answered, then they close their streams."""
        return []

    def fail(self, error: RequestError) -> list[Sink[Event]]:
        """Give up every stream; each gets ``error`` as its last event."""
        failed = list(self._open)
        for stream in failed:
            self._leave(stream)
            stream.sink.put(Failed(error))
        self._closed.clear()
        self._ready.take(len(self._ready))
        self.observer.idle()
        answered, self._sinks = self._sinks, []
        return [*answered, *(stream.sink for stream in failed)]

    # -- one step ------------------------------------------------------------------------------

    def step(self) -> list[Sink[Event]]:
        """One step of every stream that has a frame, as many as there are rows; says who got
        something."""
        started = self.clock()
        closed, self._closed = self._closed, []
        for stream in closed:
            if not (stream.is_over or stream.inbox):
                self._finish(stream)
        runs: dict[int, list[FrameStream]] = {}
        rows = 0
        for stream in self._ready.take(self.capacity):
            stream.is_ready = False
            if self._begin(stream, started):
                runs.setdefault(stream.request.shared, []).append(stream)
                rows += 1
        for shared, streams in runs.items():
            self._step(shared, streams)
        seconds = self.clock() - started
        self._report(rows, seconds)
        sinks, self._sinks = self._sinks, []
        return sinks

    def _report(self, rows: int, seconds: float) -> None:
        self.observer.stepped(rows, len(self._ready), 0, seconds, 0.0)
        if self._took or self._skipped:
            self.observer.framed(self._took, self._late, self._skipped)
            self._took, self._late, self._skipped = [], 0, 0
        if not self._open:
            self.observer.idle()

    def _begin(self, stream: FrameStream, now: float) -> bool:
        """Whether the stream has a step to take; frames that are too late are skipped."""
        if stream.started is None:
            stream.started = stream.prefilled = now
            stream.queue_seconds = now - stream.arrived
            self.observer.began(stream.queue_seconds, stream.request.resumed is not None)
        if stream.step:
            return True
        while stream.inbox:
            frame = stream.inbox[0]
            if frame.resets:
                self.rows.reset(stream.row)
            if not (frame.is_optional and now > frame.deadline):
                return True
            self._answer(stream, frame, (), now, is_skipped=True)
        self._settle(stream)
        return False

    def _step(self, shared: int, streams: list[FrameStream]) -> None:
        started = self.clock()
        try:
            self._run(shared, streams)
        except Exception as error:  # onnxruntime raises classes of its own for each status
            if len(streams) == 1:
                self._give_up(streams[0], self._failed(streams[0], error))
                return
            # One of them is at fault: alone, the others get what they would have got.
            for stream in streams:
                self._step(shared, [stream])
            return
        self._commit(streams, started)

    def _run(self, shared: int, streams: list[FrameStream]) -> None:
        """Nothing of the streams is changed until it has gone well."""
        for number, (staged, size) in enumerate(self._staged):
            data = b"".join([_values(stream, number, size) for stream in streams])
            staged[: len(data)] = data
        self.rows.gather([stream.row for stream in streams])
        self.runner.step(len(streams), shared)

    def _failed(self, stream: FrameStream, error: Exception) -> EngineFailed:
        return EngineFailed(
            f"the graph of model {self.name!r} failed on frame {stream.position} of this stream "
            f"({error}); other streams go on"
        )

    def _commit(self, streams: list[FrameStream], started: float) -> None:
        count = len(streams)
        broken = self._broken(count)
        places = range(count) if broken is None else np.flatnonzero(~broken).tolist()
        rows = [streams[place].row for place in places]
        self.rows.scatter(rows, None if broken is None else places)
        given = [(answers[:count].tobytes(), size) for answers, size in self._given]
        now = self.clock()
        for place in places:
            stream = streams[place]
            outputs = [data[place * size : (place + 1) * size] for data, size in given]
            self._take(stream, outputs, now, now - started)
        if broken is not None:
            for place in np.flatnonzero(broken).tolist():
                self._give_up_broken(streams[place], place)

    def _broken(self, count: int) -> NDArray[np.bool_] | None:
        """Rows that hold NaN: such a state would give nothing but NaN from now on."""
        answers = broken_rows_of(self._answers.values(), count)
        states = self.rows.broken(count)
        if answers is None or states is None:
            return states if answers is None else answers
        return answers | states

    def _give_up_broken(self, stream: FrameStream, place: int) -> None:
        """Whoever shares the step with it goes on."""
        error: RequestError = not_finite()
        for name, frames in self._frames.items():
            values = frames[place]
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                error = WrongInput(
                    f"input {name!r} of frame {stream.position} holds NaN or infinity, of which "
                    "the model made NaN; send finite numbers"
                )
        if not isinstance(error, WrongInput):
            self.observer.not_finite()
        self._give_up(stream, error)

    def _give_up(self, stream: FrameStream, error: RequestError) -> None:
        self._leave(stream)
        stream.sink.put(Failed(error))
        self._sinks.append(stream.sink)

    def _take(self, stream: FrameStream, outputs: list[bytes], now: float, seconds: float) -> None:
        """One step of its frame was taken."""
        frame = stream.inbox[0]
        stream.steps += 1
        stream.compute_seconds += seconds
        if frame.steps == 1:
            self._answer(stream, frame, tuple(outputs), now)
        else:
            stream.step += 1
            for part, output in zip(stream.parts, outputs, strict=True):
                part.append(output)
            if stream.step == frame.steps:
                whole = tuple(b"".join(part) for part in stream.parts)
                stream.step = 0
                stream.parts = [[] for _ in whole]
                self._answer(stream, frame, whole, now)
        self._settle(stream)

    def _answer(
        self,
        stream: FrameStream,
        frame: Frame,
        outputs: tuple[bytes, ...],
        now: float,
        is_skipped: bool = False,
    ) -> None:
        stream.inbox.popleft()
        is_late = now > frame.deadline
        self._took.append(now - frame.arrived)
        if is_late:
            stream.late += 1
            self._late += not is_skipped
            stream.skipped += is_skipped
            self._skipped += is_skipped
        if stream.first_token is None:
            stream.first_token = now
            self.observer.first_token(now - stream.arrived)
        position = stream.position
        stream.position = position + 1
        stream.answered += 1
        sink = stream.sink
        watch = stream.request.watch
        state = packed(self.rows.save(stream.row), watch) if watch else b""
        sink.put(
            FrameAnswered(position, frame.steps, outputs, frame.size, is_late, is_skipped, state)
        )
        every = stream.request.checkpoints.every
        if every and stream.position % every == 0:
            sink.put(self._checkpoint(stream))
        self._sinks.append(sink)

    def _settle(self, stream: FrameStream) -> None:
        """After a step: what it waits for now."""
        stream.is_held_up = stream.sink.mark_if_full()
        if stream.inbox:
            self._go_on(stream)
        elif stream.is_closed:
            self._finish(stream)

    def _go_on(self, stream: FrameStream) -> None:
        if stream.inbox and not (stream.is_ready or stream.is_held_up or stream.is_over):
            stream.is_ready = True
            self._ready.push(stream)

    # -- the end -------------------------------------------------------------------------------

    def _checkpoint(self, stream: FrameStream) -> Checkpoint:
        """After the last frame that was answered."""
        state = self.rows.save(stream.row)
        state[_SHARED] = np.array(stream.request.shared, np.int64)
        resumed = stream.request.resumed
        changed = resumed.changed if resumed else ""
        return Checkpoint(0, StepSnapshot(stream.position, state, changed))

    def _finish(self, stream: FrameStream) -> None:
        wants_one = stream.request.checkpoints.at_end or (
            stream.ends_as is FinishReason.HANDED_OVER
        )
        if wants_one:
            stream.sink.put(self._checkpoint(stream))
        stream.finished = self.clock()
        first = stream.first_token
        stream.sink.put(
            Finished(
                stream.ends_as,
                stream.steps,
                stream.answered,
                stream.queue_seconds,
                0.0 if first is None else first - stream.arrived,
            )
        )
        self._sinks.append(stream.sink)
        self._end(stream, stream.ends_as)

    def _end(self, stream: FrameStream, reason: FinishReason) -> None:
        self._leave(stream)
        self.observer.answered(stream.queue_seconds, stream.compute_seconds)
        self.observer.finished(reason, stream.steps, stream.answered)

    def _leave(self, stream: FrameStream) -> None:
        stream.is_over = True
        if self._open.pop(stream, 0) is None:
            self.rows.give(stream.row)
        stream.inbox.clear()


def shared_of(snapshot: StepSnapshot) -> int:
    """The choice of what steps share that the stream began with."""
    return int(snapshot.state[_SHARED])


def _values(stream: FrameStream, number: int, size: int) -> bytes:
    """Of the step that the stream is at, one of the inputs. size: in bytes."""
    frame = stream.inbox[0]
    values = frame.values[number]
    if frame.steps == 1:
        return values
    return values[stream.step * size : (stream.step + 1) * size]
