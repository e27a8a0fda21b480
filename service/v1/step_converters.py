"""Messages of StreamStep to frames and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.errors import WrongInput
from service.engine.requests import FinishReason, FrameAnswered, ResumePolicy
from service.serving.named_states import NamedState
from service.serving.stepper import StepMessage, StepperModel, StepStream, StepStreamParams
from service.step_model import FramePort, StepperSpec
from service.v1.state_converters import to_changes, to_watch
from service.varint import varint
from unroll.v1 import unroll_pb2 as pb

_TYPES = {
    name: getattr(pb, f"DATA_TYPE_{name.upper()}")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64",
    )
}  # fmt: skip
_NAMES = {number: name for name, number in _TYPES.items()}
BATCHING = {
    "exact": pb.BATCHING_EXACT,
    "inexact": pb.BATCHING_INEXACT,
    "none": pb.BATCHING_NONE,
}
_TYPED = ("floats", "doubles", "integers", "unsigned_integers", "booleans")
_MOST_RANK = 32
# Tags: StreamStepResponse.results; StepResult.position, steps with the value 1, and outputs;
# Tensor.raw.
_RESULT, _HEAD, _ONE_STEP, _TENSOR, _RAW = b"\x0a", b"\x08", b"\x10\x01", b"\x1a", b"\x22"
_MOST_NUMBER_BYTES = 8  # more than a position takes with its tag
_IS_LITTLE_ENDIAN = sys.byteorder == "little"


def _field_of(dtype: str) -> str:
    """Of Tensor, the one that holds typed values of this type."""
    special = {"float64": "doubles", "uint64": "unsigned_integers", "bool": "booleans"}
    return special.get(dtype, "floats" if dtype.startswith("float") else "integers")


def to_step_params(
    start: pb.StreamStepStart, subject: str, named: NamedState | None = None
) -> StepStreamParams:
    return StepStreamParams(
        shared=dict(start.shared),
        outputs=tuple(start.outputs),
        deadline_seconds=start.deadline_seconds,
        skips_late=start.skip_late,
        checkpoints=ResumePolicy(start.resume_every, start.resume_at_end),
        resume_token=start.resume_token or None,
        allow_inexact=start.allow_inexact,
        subject=subject,
        watch=to_watch(start),
        start=named,
        set_state=to_changes(start.set_state),
    )


@dataclass(frozen=True, slots=True)
class _PlainFrame:
    """What requests of one length begin with that differ in nothing but a tensor's raw bytes.

    size: of the whole request. steps: of its frame.
    """

    head: bytes
    size: int
    steps: int


class FrameReader:
    """Frames of one stream as a model takes them.

    A stream's frames mostly differ in their values alone. So the bytes of a request are known as
    far as its values after one that was read as a message, and the next ones are not.
    """

    def __init__(self, model: StepperModel, stream: StepStream) -> None:
        self._model = model
        self._stream = stream
        self._plain: _PlainFrame | None = None
        self._ports = model.stepper.model.inputs
        self._places = {port.name: place for place, port in enumerate(self._ports)}
        self._names_of_one = ("", self._ports[0].name)

    def push(self, frame: pb.StepFrame) -> bool:
        """As StepStream.push(). Raises WrongInput, with the tensor's name."""
        values, steps = self._read(frame.inputs)
        self._model.check_steps(steps)
        seconds = frame.deadline_seconds if frame.HasField("deadline_seconds") else None
        if seconds is None and not frame.reset:
            self._plain = self._plain_of(frame.inputs, values, steps)
        return self._stream.push(values, steps, frame.reset, seconds)

    def take(self, data: bytes) -> bool:
        """Push the frame of a request, serialized, where it is like the last one that was read and
        there is room; False, and nothing, for any other."""
        plain = self._plain
        if plain is None or len(data) != plain.size or not data.startswith(plain.head):
            return False
        return self._stream.push_now((data[len(plain.head) :],), plain.steps)

    def _plain_of(
        self, tensors: Sequence[pb.Tensor], values: tuple[bytes, ...], steps: int
    ) -> _PlainFrame | None:
        """None where more than the raw bytes of one tensor may differ, or must be looked at."""
        if len(values) > 1 or not tensors[0].raw or self._ports[0].dtype == "bool":
            return None
        (tensor,), (raw,) = tensors, values
        # Fields are written in the order of their numbers, so that raw is the last of these.
        only = pb.Tensor(name=tensor.name, data_type=tensor.data_type, shape=tensor.shape, raw=raw)
        request = pb.StreamStepRequest(frame=pb.StepFrame(inputs=[only]))
        data: bytes = request.SerializeToString(deterministic=True)
        return _PlainFrame(data[: -len(raw)], len(data), steps)

    def _read(self, tensors: Sequence[pb.Tensor]) -> tuple[tuple[bytes, ...], int]:
        if len(self._ports) == 1 and len(tensors) == 1 and tensors[0].name in self._names_of_one:
            values, steps = _values(tensors[0], self._ports[0])
            return (values,), steps
        return self._read_all(tensors)

    def _read_all(self, tensors: Sequence[pb.Tensor]) -> tuple[tuple[bytes, ...], int]:
        found: dict[int, tuple[bytes, int]] = {}
        for tensor in tensors:
            place = self._places.get(tensor.name)
            if place is None:
                raise WrongInput(
                    f"input {tensor.name[:200]!r} is unknown; model {self._model.card.name!r} "
                    f"takes {', '.join(map(repr, self._places))}"
                )
            if place in found:
                raise WrongInput(f"input {tensor.name!r} comes twice; send it once")
            found[place] = _values(tensor, self._ports[place])
        for name, place in self._places.items():
            if place not in found:
                port = self._ports[place]
                raise WrongInput(
                    f"input {name!r} is missing; send it as {port.dtype} of shape "
                    f"{list(port.shape)} a step"
                )
        steps = found[0][1]
        for name, place in self._places.items():
            if found[place][1] != steps:
                raise WrongInput(
                    f"input {name!r} has {found[place][1]} steps, input {self._ports[0].name!r} "
                    f"has {steps}; send as many of each"
                )
        return tuple(found[place][0] for place in range(len(found))), steps


def to_sequences(tensors: Sequence[pb.Tensor], channels: int) -> list[NDArray[Any]]:
    """Of Classify: (frames, channels) float32 each. channels: 0 for a model that reads none, which
    refuses what it gets. Raises WrongInput."""
    if not channels:
        return []
    found = []
    for number, tensor in enumerate(tensors):
        port = FramePort(f"frames[{number}]", "float32", (channels,))
        values, count = _values(tensor, port)
        found.append(np.frombuffer(values, "<f4").astype(np.float32).reshape(count, channels))
    return found


def _values(tensor: pb.Tensor, port: FramePort) -> tuple[bytes, int]:
    """As bytes, and how many steps they are. Raises WrongInput."""
    if tensor.data_type and tensor.data_type != _TYPES[port.dtype]:
        sent = _NAMES.get(tensor.data_type, str(tensor.data_type))
        raise WrongInput(f"input {port.name!r} is {sent}, the model takes {port.dtype}")
    raw = tensor.raw
    # Mostly there is nothing but raw bytes.
    if not raw or len(tensor.ListFields()) > 1:
        typed = _typed(tensor, port)
        if typed is not None:
            if raw:
                raise WrongInput(
                    f"input {port.name!r} has raw bytes and typed values; send one of the two"
                )
            raw = typed.tobytes()
    size = port.row_bytes
    steps, rest = divmod(len(raw), size) if size else (_steps_of(tensor, port), len(raw))
    if rest or not steps:
        raise WrongInput(
            f"input {port.name!r} has {len(raw)} bytes; a step is {size}: {port.dtype} of shape "
            f"{list(port.shape)}"
        )
    if tensor.shape and _steps_of(tensor, port) != steps:
        raise WrongInput(
            f"input {port.name!r} has the shape {_shape_of(tensor)} and {len(raw)} bytes, which "
            f"are {steps} steps"
        )
    if port.dtype == "bool" and max(raw) > 1:
        raise WrongInput(f"input {port.name!r} has a byte {max(raw)}; a truth value is 0 or 1")
    return raw, steps


def _typed(tensor: pb.Tensor, port: FramePort) -> NDArray[Any] | None:
    """The typed values; None for a tensor without. Raises WrongInput."""
    wanted = _field_of(port.dtype)
    values: NDArray[Any] | None = None
    for name in _TYPED:
        held = getattr(tensor, name)
        if not held:
            continue
        if name != wanted:
            raise WrongInput(f"input {port.name!r} is {port.dtype} and has {name}; fill {wanted}")
        given = np.array(held)
        if port.dtype in ("int8", "int16", "int32", "uint8", "uint16", "uint32"):
            info = np.iinfo(port.dtype)
            if given.min() < info.min or given.max() > info.max:
                raise WrongInput(
                    f"input {port.name!r} has values from {given.min()} to {given.max()}, which "
                    f"{port.dtype} does not hold"
                )
        with np.errstate(over="ignore"):
            values = given.astype(port.dtype)
        if values.dtype.kind == "f" and np.isinf(values).any() and not np.isinf(given).any():
            raise WrongInput(f"input {port.name!r} has values that {port.dtype} does not hold")
    return values


def _steps_of(tensor: pb.Tensor, port: FramePort) -> int:
    """By its shape. Raises WrongInput."""
    shape = tuple(tensor.shape)
    if shape == port.shape:
        return 1
    if len(shape) == len(port.shape) + 1 and shape[1:] == port.shape and shape[0] > 0:
        return int(shape[0])
    raise WrongInput(
        f"input {port.name!r} has the shape {_shape_of(tensor)}, the model takes "
        f"{list(port.shape)} a step, and several steps as {[-1, *port.shape]} (-1: any number)"
    )


def _shape_of(tensor: pb.Tensor) -> list[int]:
    """For messages."""
    return list(tensor.shape[:_MOST_RANK])


class AnswerEncoder:
    """Answers of one stream as messages.

    outputs: places, among the model's, of those that are answered. is_typed: as typed values, not
    as raw bytes.
    """

    def __init__(self, ports: Sequence[FramePort], outputs: Sequence[int], is_typed: bool) -> None:
        self._outputs = [(place, ports[place]) for place in outputs]
        self._is_plain = not is_typed and _IS_LITTLE_ENDIAN
        self._is_typed = is_typed
        # Of a result of one step all is known but its position and the values: what it begins
        # with, by the bytes of its position, and what stands before the values of each output.
        before = [_before_values_of(ports[place]) for place in outputs]
        size = len(_ONE_STEP) + sum(map(len, before))
        size += sum(ports[place].row_bytes for place in outputs)
        self._starts = [_RESULT + varint(number + size) for number in range(_MOST_NUMBER_BYTES)]
        self._parts = list(zip(outputs, before, strict=True))

    def __call__(self, answers: Sequence[FrameAnswered]) -> bytes:
        """A response, serialized."""
        if self._is_plain:
            results = [self._encoded(answer) for answer in answers]
            if None not in results:
                return b"".join(results)  # type: ignore[arg-type]
        data: bytes = self.response(answers).SerializeToString()
        return data

    def _encoded(self, answer: FrameAnswered) -> bytes | None:
        """A result of one step, as StreamStepResponse has it; None for any other.

        The usual one by hand: a message for each tensor takes longer than all else that is done
        with a frame on the event loop.
        """
        if answer.steps != 1 or answer.is_late or answer.state:
            return None
        number = _HEAD + varint(answer.position) if answer.position else b""
        parts = [self._starts[len(number)], number, _ONE_STEP]
        for place, before in self._parts:
            parts += (before, answer.outputs[place])
        return b"".join(parts)

    def response(self, answers: Sequence[FrameAnswered]) -> pb.StreamStepResponse:
        response = pb.StreamStepResponse()
        for answer in answers:
            result = response.results.add(position=answer.position, steps=answer.steps)
            if answer.is_late:
                result.late = True
                result.skipped = answer.is_skipped
            if answer.state:
                result.state = answer.state
            if not answer.is_skipped:
                self._add_outputs(result.outputs, answer)
        return response

    def _add_outputs(self, added: Any, answer: FrameAnswered) -> None:
        for place, port in self._outputs:
            tensor = added.add(
                name=port.name,
                data_type=_TYPES[port.dtype],
                shape=(answer.steps, *port.shape),
            )
            data = answer.outputs[place]
            if self._is_typed:
                field = getattr(tensor, _field_of(port.dtype))
                field.extend(np.frombuffer(data, port.dtype).tolist())
            elif _IS_LITTLE_ENDIAN:
                tensor.raw = data
            else:
                tensor.raw = np.frombuffer(data, port.dtype).byteswap().tobytes()


def _before_values_of(port: FramePort) -> bytes:
    """A Tensor of one step, in a result, as far as its raw bytes."""
    head = pb.Tensor(name=port.name, data_type=_TYPES[port.dtype], shape=(1, *port.shape))
    tensor: bytes = head.SerializeToString() + _RAW + varint(port.row_bytes)
    return _TENSOR + varint(len(tensor) + port.row_bytes) + tensor


def from_step_message(
    message: StepMessage, stream: StepStream, encoder: AnswerEncoder
) -> pb.StreamStepResponse:
    response = encoder.response(message.answers)
    for snapshot in message.checkpoints:
        response.resume_points.add(
            token=stream.sign(snapshot),
            next_position=snapshot.next_position,
            changed=snapshot.changed,
        )
    if ended := message.finished:
        response.usage.CopyFrom(
            pb.StepUsage(
                frames=ended.output_tokens,
                steps=ended.input_tokens,
                late_frames=stream.work.late,
                skipped_frames=stream.work.skipped,
                queue_seconds=ended.queue_seconds,
                time_to_first_answer_seconds=ended.first_token_seconds,
            )
        )
        response.handed_over = ended.reason is FinishReason.HANDED_OVER
    return response


def from_stepper(stepper: StepperSpec, message_steps: int) -> pb.Stepper:
    spec = stepper.spec
    return pb.Stepper(
        inputs=[_info(port) for port in stepper.model.inputs],
        outputs=[_info(port) for port in stepper.model.outputs],
        shared=[
            pb.SharedInput(name=name, choices=choices) for name, choices in stepper.shared.items()
        ],
        batching=BATCHING[stepper.batching],
        reason=stepper.reason,
        frame_seconds=spec.frame_seconds,
        attributes={name: str(value) for name, value in spec.attributes.items()},
        message_steps=message_steps,
    )


def _info(port: FramePort) -> pb.TensorInfo:
    return pb.TensorInfo(name=port.name, data_type=_TYPES[port.dtype], shape=port.shape)


class DirectAnswers:
    """A DirectWriter of a call."""

    def __init__(
        self,
        has_room: Callable[[], bool],
        write_now: Callable[[bytes], None],
        stream: StepStream,
        encode: AnswerEncoder,
    ) -> None:
        self.has_room = has_room
        self._write_now = write_now
        self._stream = stream
        self._encode = encode

    def write(self, answers: Sequence[Any]) -> None:
        self._stream.answered(answers)
        self._write_now(self._encode(answers))
