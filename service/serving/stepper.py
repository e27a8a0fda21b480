"""The stepper: frames of numbers in as they come, an answer for each out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from service.access.memory_budget import FRAMES, MemoryBudget, Reservation
from service.engine.errors import WrongInput
from service.engine.frame_stepping import Frame, FrameEngine, FrameStream, shared_of
from service.engine.requests import (
    NO_CHECKPOINTS,
    Checkpoint,
    Event,
    Finished,
    FrameAnswered,
    ResumePolicy,
    StepRequest,
    StepSnapshot,
)
from service.serving.frame_gatherer import FrameGatherer, Pushed
from service.serving.model_info import ModelCard
from service.serving.named_states import MadeState, NamedState, StateParams, check_alone
from service.serving.output_stream import TokenStream
from service.serving.resume_token import STREAM_STEP, ResumeTokens, ServedBundle
from service.serving.sampling_params import check_checkpoints
from service.serving.served_model import ServedModel
from service.serving.state_access import (
    StateChange,
    WatchParams,
    check_resumes,
    watch_of,
    with_changes,
)
from service.serving.worker import EngineThread
from service.step_model import StepperSpec

# Of one stream, frames that wait for their answers, or whose answers wait to be read, before no
# more of its caller's are read; and their bytes, answers counted. A caller in real time has a frame
# or two; more than a few would only make a server that is behind answer everybody later.
MOST_WAITING_FRAMES, MOST_WAITING_BYTES = 16, 1 << 20
# Answers that may wait for their reader before its stream takes part in no further step.
_FULL = MOST_WAITING_FRAMES // 2
# That a stream holds of the budget at least, once it has had a frame.
_HELD_BYTES = 16_384
# Of a frame beside its values and its answers.
_FRAME_BYTES = 1024
# The time between frames is that of so many of them, so that one that is early or late moves it
# little.
_SMOOTHING = 1 / 8
_LONGEST_DEADLINE = 86_400.0


@dataclass(frozen=True)
class StepStreamParams:
    """shared: values of what steps share, by name; those left out are usual.

    deadline_seconds: of each frame that has none of its own; 0 for never. skips_late: whether such
    a frame is left out once that has passed. outputs: that are answered; none for all.
    subject: who asks, as far as it is known. start: a state to begin from.
    """

    shared: Mapping[str, float] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    deadline_seconds: float = 0.0
    skips_late: bool = False
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    resume_token: bytes | None = None
    allow_inexact: bool = False
    subject: str = ""
    watch: WatchParams | None = None
    start: NamedState | None = None
    set_state: tuple[StateChange, ...] = ()


@dataclass(frozen=True)
class StepMessage:
    """What has gathered since the last one. finished: in the last one only."""

    answers: Sequence[FrameAnswered]
    checkpoints: Sequence[StepSnapshot]
    finished: Finished | None

    def __bool__(self) -> bool:
        return bool(self.answers or self.checkpoints or self.finished)


@dataclass(frozen=True)
class FrameTurn:
    """A frame of a stream that is kept elsewhere between its frames.

    values, steps: as Frame has them. shared: the place of the stream's choice. before: what its
    last frame led to; None for the first one.
    """

    values: tuple[bytes, ...]
    steps: int
    shared: int
    before: StepSnapshot | None


class AnswerStream(TokenStream):
    """As TokenStream, of frames: each answer is worth a message, since its caller waits for it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._full = _FULL

    @property
    def is_due(self) -> bool:
        return True

    def _take_tokens(self) -> list[FrameAnswered]:  # type: ignore[override]
        taken: list[FrameAnswered] = []
        events = self._events
        while events and type(events[0]) is FrameAnswered:
            taken.append(events.popleft())  # type: ignore[arg-type]
        self._count_taken(len(taken))
        return taken


class StepStream:
    """A stream under way: push frames, close_input(), read messages; close() it in any case.

    outputs: places, among the model's, of those that are answered. sign: makes a resume token of a
    snapshot. held: of the budget, by frames that wait.
    """

    def __init__(
        self,
        model: StepperModel,
        events: AnswerStream,
        params: StepStreamParams,
        outputs: tuple[int, ...],
        sign: Callable[[StepSnapshot], bytes],
        held: Reservation,
    ) -> None:
        self.events = events
        self.outputs = outputs
        self.sign = sign
        self._model = model
        self._params = params
        self._held = held
        self._waiting = self._bytes = 0
        self._gap = 0.0
        self._last = -math.inf
        self._room: asyncio.Event | None = None  # set once there is room again
        self._is_open = True
        model.gatherer.open += 1

    @property
    def work(self) -> FrameStream:
        work: FrameStream = self.events.work
        return work

    def push(
        self, values: tuple[bytes, ...], steps: int, resets: bool, deadline_seconds: float | None
    ) -> bool:
        """Have a frame answered; returns whether there is room for more, else wait_for_room().

        deadline_seconds: of this one; None for that of all. Raises WrongInput, or Overloaded where
        the frames of all streams take too much.
        """
        seconds = self._params.deadline_seconds
        if deadline_seconds is not None:
            check_deadline(deadline_seconds)
            seconds = deadline_seconds
        self._hold(self._model.waiting_bytes(steps))
        self._push(values, steps, resets, seconds)
        return self.has_room

    def push_now(self, values: tuple[bytes, ...], steps: int) -> bool:
        """push() of a frame without options, where there is room for it and its bytes are held
        already; False, and nothing, where not. It does not raise, and is called from anywhere on
        the event loop."""
        size = self._bytes + self._model.waiting_bytes(steps)
        if size > self._held.size or not (self._is_open and self.has_room):
            return False
        self._bytes = size
        self._push(values, steps, False, self._params.deadline_seconds)
        return True

    def _push(self, values: tuple[bytes, ...], steps: int, resets: bool, seconds: float) -> None:
        """seconds: until it is late; 0 for never."""
        now = self._model.clock()
        frame = Frame(
            values,
            steps,
            now,
            now + seconds if seconds else math.inf,
            bool(seconds) and self._params.skips_late,
            resets,
        )
        gap = 0.0 if self._waiting else now - self._last
        if self._last > 0.0:
            self._gap += _SMOOTHING * (gap - self._gap)
        self._last = now
        self._waiting += 1
        self._model.gatherer.add(self.work, frame, self._gap)

    def _hold(self, size: int) -> None:
        """So many bytes more wait. Raises Overloaded."""
        missing = self._bytes + size - self._held.size
        if missing > 0:
            # Of streams in real time a frame or two wait: that is asked for once.
            missing = max(missing, _HELD_BYTES)
            self._model.budget.check(FRAMES, missing)
            self._held.change(missing)
        self._bytes += size

    @property
    def has_room(self) -> bool:
        return self._waiting < MOST_WAITING_FRAMES and self._bytes < MOST_WAITING_BYTES

    async def wait_for_room(self) -> None:
        if not self.has_room:
            self._room = asyncio.Event()
            await self._room.wait()
            self._room = None

    def close_input(self, is_handed_over: bool = False) -> None:
        """No further frames come; the stream ends once every one has its answer.

        is_handed_over: further ones go elsewhere, and its last message says where it is.
        """
        self._leave()
        close = partial(self._model.engine.close_input, is_handed_over=is_handed_over)
        self._model.thread.do(close, self.work)

    def _leave(self) -> None:
        """It brings no further frames, so nobody waits for them."""
        if self._is_open:
            self._is_open = False
            self._model.gatherer.open -= 1
            self._model.gatherer.flush()

    def answered(self, answers: Sequence[FrameAnswered]) -> None:
        """These leave for the caller."""
        self._waiting -= len(answers)
        for answer in answers:
            self._bytes -= self._model.waiting_bytes(answer.steps)
        if not self._waiting and self._held.size > 2 * _HELD_BYTES:
            self._held.release()
        if self._room is not None and self.has_room:
            self._room.set()

    async def __aiter__(self) -> AsyncIterator[StepMessage]:
        """Raises EngineFailed, NotFinite or ServiceStopping when the engine gives the stream up."""
        async for events in self.events:
            message = _message(events)
            self.answered(message.answers)
            if message:
                yield message

    def close(self) -> None:
        self._leave()
        self.events.close()
        self._held.release()


class StepperModel(ServedModel):
    """A model that is stepped over numbers.

    budget: of the bytes that frames which wait for their answers take. clock: the engine's, in
    seconds.
    """

    does = "step over numbers"

    def __init__(
        self,
        card: ModelCard,
        stepper: StepperSpec,
        engine: FrameEngine,
        thread: EngineThread,
        resume_tokens: ResumeTokens,
        budget: MemoryBudget,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(card)
        self.stepper = stepper
        self.engine = engine
        self.thread = thread
        self.resume_tokens = resume_tokens
        self.budget = budget
        self.clock = clock
        self.most_steps = card.limits["message_steps"]
        self.gatherer = FrameGatherer(self._push)
        self._choices = stepper.choices
        ports = (*stepper.model.inputs, *stepper.model.outputs)
        self._step_bytes = sum(port.row_bytes for port in ports)

    @property
    def calls(self) -> str:
        return "StreamStep"

    @property
    def frame_stepper(self) -> StepperModel:
        return self

    def waiting_bytes(self, steps: int) -> int:
        """What a frame takes until its answer is read."""
        return _FRAME_BYTES + steps * self._step_bytes

    def _push(self, frames: Sequence[Pushed]) -> None:
        self.thread.do(self.engine.push, frames)

    def open(self, params: StepStreamParams) -> StepStream:
        """Raises WrongInput, ResumeInvalid, ResumeRefused, QueueFull or EngineFailed."""
        check_checkpoints(params.checkpoints)
        check_deadline(params.deadline_seconds)
        check_resumes(params.set_state, params.resume_token is not None)
        shared, outputs = self.choice_of(params.shared), self._outputs_of(params.outputs)
        resumed: StepSnapshot | None = None
        if params.start:
            check_alone(params.resume_token)
            params.start.check(self._bundle, params.allow_inexact)
            resumed = StepSnapshot(0, params.start.state)
        elif params.resume_token is not None:
            resumed = self.resume_tokens.open_steps(
                params.resume_token, self._bundle, params.subject, params.allow_inexact
            )
        if resumed:
            begun = shared_of(resumed)
            if params.shared and begun != shared:
                what = "state" if params.start else "resume token"
                raise WrongInput(
                    f"the stream of the {what} began with {_as_text(self._choices[begun])}; "
                    "send the same, or none"
                )
            shared = begun
            resumed = with_changes(resumed, params.set_state, self.card)
        return self._open(params, outputs, shared, resumed)

    @property
    def state_maker(self) -> StepperModel:
        return self

    async def make_state(self, params: StateParams) -> MadeState:
        """As StateMaker, of a resume token alone: what is read are numbers."""
        if params.resume_token is None or params.base:
            raise WrongInput(f"a state of model {self.card.name!r} is made of a resume token alone")
        snapshot = self.resume_tokens.open_steps(
            params.resume_token, self._bundle, params.subject, params.allow_inexact
        )
        return MadeState(self._bundle, (), snapshot.state)

    async def turns(self, turns: Sequence[FrameTurn]) -> list[tuple[FrameAnswered, StepSnapshot]]:
        """The answer to each, and where its stream is then, side by side.

        Nothing is kept here: the same call again gives the same. Raises WrongInput, NotFinite,
        QueueFull or EngineFailed.
        """
        if len(turns) > (limit := self.thread.limit):
            raise WrongInput(
                f"the request has {len(turns)} rows, and this server steps at most {limit} at "
                "once; send fewer rows"
            )
        params = StepStreamParams(checkpoints=ResumePolicy(at_end=True))
        streams: list[StepStream] = []
        try:
            for turn in turns:
                stream = self._open(params, (), turn.shared, turn.before)
                streams.append(stream)
                stream.push(turn.values, turn.steps, False, None)
            for stream in streams:
                stream.close_input()
            return [await _whole(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def check_steps(self, steps: int) -> None:
        """Raises WrongInput for more of them than a frame may have."""
        if steps > self.most_steps:
            raise WrongInput(
                f"the frame has {steps} steps; model {self.card.name!r} takes at most "
                f"{self.most_steps} at once: send several frames"
            )

    def choice_of(self, shared: Mapping[str, float]) -> int:
        """The place of these values among all choices. Raises WrongInput."""
        known = self.stepper.shared
        for name, value in shared.items():
            if name not in known:
                names = ", ".join(map(repr, known)) or "none"
                raise WrongInput(
                    f"shared value {name!r} is unknown; model {self.card.name!r} has {names}"
                )
            if value not in known[name]:
                choices = ", ".join(f"{choice:g}" for choice in known[name])
                raise WrongInput(f"shared value {name!r} is {value:g}; choose one of {choices}")
        return self._choices.index({**self._choices[0], **shared})

    def _outputs_of(self, names: Sequence[str]) -> tuple[int, ...]:
        known = [port.name for port in self.stepper.model.outputs]
        for name in names:
            if name not in known:
                raise WrongInput(
                    f"output {name!r} is unknown; model {self.card.name!r} gives "
                    f"{', '.join(map(repr, known))}"
                )
            if names.count(name) > 1:
                raise WrongInput(f"output {name!r} is asked for twice; ask once")
        return tuple(known.index(name) for name in names or known)

    @property
    def _bundle(self) -> ServedBundle:
        return ServedBundle.of(self.card, STREAM_STEP)

    def _open(
        self,
        params: StepStreamParams,
        outputs: tuple[int, ...],
        shared: int,
        resumed: StepSnapshot | None,
    ) -> StepStream:
        watch = watch_of(params.watch, self.card)
        request = StepRequest(self.clock(), shared, params.checkpoints, resumed, watch)
        # First: a stream that was opened and then refused would keep its place for good.
        held = self.budget.reserve(FRAMES, 0)
        events = AnswerStream.open(self.thread, request)
        assert isinstance(events, AnswerStream)
        return StepStream(
            self,
            events,
            params,
            outputs,
            lambda snapshot: self.resume_tokens.sign(snapshot, self._bundle, params.subject),
            held,
        )


async def _whole(stream: StepStream) -> tuple[FrameAnswered, StepSnapshot]:
    messages = [message async for message in stream]
    (answer,) = [answer for message in messages for answer in message.answers]
    (after,) = [point for message in messages for point in message.checkpoints]
    return answer, after


def check_deadline(seconds: float) -> None:
    """Raises WrongInput."""
    if not 0 <= seconds <= _LONGEST_DEADLINE:
        raise WrongInput(
            f"deadline_seconds is {seconds:g}; choose 0 for never, or up to {_LONGEST_DEADLINE:g}"
        )


def _message(events: Sequence[Event]) -> StepMessage:
    last = events[-1]
    return StepMessage(
        [event for event in events if type(event) is FrameAnswered],
        [
            event.snapshot
            for event in events
            if type(event) is Checkpoint and isinstance(event.snapshot, StepSnapshot)
        ],
        last if isinstance(last, Finished) else None,
    )


def _as_text(choice: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in choice.items())
