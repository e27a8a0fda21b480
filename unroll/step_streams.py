"""What goes into a stream of frames and comes out of it, and its messages."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from unroll.types import (
    ResumePoint,
    StateChange,
    Watch,
    to_changes,
    to_resume_point,
    to_watch,
)
from unroll.v1 import unroll_pb2 as pb

# A NumPy array, or whatever else has its dtype, shape and tobytes(); bytes, little-endian; numbers.
Values = Any
# A tensor's size, as memoryview knows it, by the name of its type.
_FORMATS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B",
    "uint16": "H", "uint32": "I", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
_PREFIX = "DATA_TYPE_"


@dataclass(frozen=True)
class Frame:
    """inputs: values by name; of a model with one input its values alone. One step or, with an axis
    more in front, several.

    reset: begin anew before this frame. deadline_seconds: as in StepOptions, of this frame.
    """

    inputs: Mapping[str, Values] | Values
    reset: bool = False
    deadline_seconds: float | None = None


class StepOptions(TypedDict, total=False):
    """Options of stream_step.

    shared: values for inputs that all steps share, by name. outputs: names of those that are
    answered; all of them by default. deadline_seconds: after which a frame's answer is late; 0 for
    never. skip_late: leave out frames whose deadline passes before they are begun. All others are
    as those of generate, of frames.
    """

    shared: Mapping[str, float]
    outputs: Sequence[str]
    deadline_seconds: float
    skip_late: bool
    resume_every: int
    resume_at_end: bool
    resume_token: bytes | None
    allow_inexact: bool
    version: str
    watch: Watch | None
    state: str
    set_state: Sequence[StateChange]


@dataclass(frozen=True)
class StepResult:
    """The answer to a frame. position: its place in the stream, from 0.

    outputs: by name, each (steps, …) as a NumPy array; without NumPy as a memoryview. late: its
    deadline had passed when it was answered; skipped: and the model did not step over it. state:
    what was watched of the state after it, as in Token.
    """

    position: int
    steps: int
    outputs: dict[str, Any]
    late: bool = False
    skipped: bool = False
    state: bytes = b""


@dataclass(frozen=True)
class StepStreamEnd:
    """How a stream of frames ended: numbers of frames and of steps. Times in seconds, from the
    first frame.

    handed_over: the server stops before the caller has sent its last frame. Only without failover;
    after one, numbers are of all calls and times the first reported.
    """

    frames: int
    steps: int
    late_frames: int
    skipped_frames: int
    queue_seconds: float
    time_to_first_answer_seconds: float
    handed_over: bool = False


@dataclass(frozen=True)
class StepChunk:
    """One message of a stream of frames; end: in the last one."""

    results: list[StepResult]
    resume_points: list[ResumePoint]
    end: StepStreamEnd | None


def to_step_start(model: str, options: StepOptions) -> pb.StreamStepStart:
    """Raises ValueError for a number its field cannot hold."""
    rest: dict[str, Any] = dict(options)
    watch = rest.pop("watch", None)
    return pb.StreamStepStart(
        model=model,
        model_version=rest.pop("version", ""),
        watch=None if watch is None else to_watch(watch),
        set_state=to_changes(rest.pop("set_state", ())),
        **rest,
    )


def to_frame(frame: Frame | Mapping[str, Values] | Values) -> pb.StepFrame:
    """Its message, a copy: a caller may fill the same array again."""
    if not isinstance(frame, Frame):
        frame = Frame(frame)
    named = frame.inputs if isinstance(frame.inputs, Mapping) else {"": frame.inputs}
    message = pb.StepFrame(
        inputs=[_to_tensor(name, values) for name, values in named.items()], reset=frame.reset
    )
    if frame.deadline_seconds is not None:
        message.deadline_seconds = frame.deadline_seconds
    return message


def _to_tensor(name: str, values: Values) -> pb.Tensor:
    if isinstance(values, bytes | bytearray | memoryview):
        return pb.Tensor(name=name, raw=bytes(values))
    if not hasattr(values, "dtype"):
        return _of_numbers(name, list(values))
    dtype = values.dtype
    try:
        data_type = pb.DataType.Value(_PREFIX + dtype.name.upper())
    except ValueError:
        raise TypeError(f"values of {dtype} cannot be sent; convert them to numbers") from None
    if dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big"):
        values = values.astype(dtype.newbyteorder("<"))
    return pb.Tensor(name=name, data_type=data_type, shape=values.shape, raw=values.tobytes())


def to_sequence(frames: Values) -> pb.Tensor:
    """frames: (time, channels), an array or lists of numbers. Raises ValueError for frames of
    several sizes."""
    if hasattr(frames, "astype"):
        return _to_tensor("", frames.astype("float32"))
    rows = [list(frame) for frame in frames]
    sizes = sorted({len(row) for row in rows})
    if len(sizes) > 1:
        raise ValueError(f"frames of one sequence have {sizes[0]} and {sizes[-1]} numbers")
    shape = (len(rows), *(sizes or (0,)))
    return pb.Tensor(shape=shape, floats=[number for row in rows for number in row])


def _of_numbers(name: str, values: list[Any]) -> pb.Tensor:
    """Of one step or several, one after the other: the model knows the shape."""
    if all(isinstance(value, bool) for value in values):
        return pb.Tensor(name=name, booleans=values)
    if all(isinstance(value, int) for value in values):
        return pb.Tensor(name=name, integers=values)
    return pb.Tensor(name=name, floats=values)


def to_result(message: pb.StepResult) -> StepResult:
    return StepResult(
        message.position,
        message.steps,
        {tensor.name: _to_array(tensor) for tensor in message.outputs},
        message.late,
        message.skipped,
        message.state,
    )


def _to_array(tensor: pb.Tensor) -> Any:
    name = pb.DataType.Name(tensor.data_type).removeprefix(_PREFIX).lower()
    try:
        import numpy
    except ImportError:
        cast: Any = memoryview(tensor.raw).cast
        return cast(_FORMATS[name], list(tensor.shape))
    dtype = numpy.dtype(name).newbyteorder("<")
    return numpy.frombuffer(tensor.raw, dtype).reshape(tuple(tensor.shape))


def to_step_chunk(response: pb.StreamStepResponse) -> StepChunk:
    return StepChunk(
        [to_result(result) for result in response.results],
        [to_resume_point(point) for point in response.resume_points],
        to_step_end(response.usage, response.handed_over) if response.HasField("usage") else None,
    )


def to_step_end(usage: pb.StepUsage, handed_over: bool = False) -> StepStreamEnd:
    return StepStreamEnd(
        usage.frames,
        usage.steps,
        usage.late_frames,
        usage.skipped_frames,
        usage.queue_seconds,
        usage.time_to_first_answer_seconds,
        handed_over,
    )
