"""Frames by the bytes of their requests, and answers as bytes."""

from types import SimpleNamespace

import numpy as np
import pytest

from service.engine.requests import FrameAnswered
from service.step_model import FramePort, StepModel
from service.v1.step_converters import AnswerEncoder, FrameReader
from unroll.v1 import unroll_pb2 as pb

FRAME = FramePort("frame", "float32", (4,))
RAW = np.arange(4, dtype="<f4").tobytes()
OTHER = np.arange(4, 8, dtype="<f4").tobytes()


class Stream:
    """What was pushed: read as a message, or taken."""

    def __init__(self):
        self.pushed, self.taken = [], []
        self.has_room = True

    def push(self, values, steps, resets, seconds):
        self.pushed.append((values, steps, resets, seconds))
        return True

    def push_now(self, values, steps):
        if self.has_room:
            self.taken.append((values, steps))
        return self.has_room


@pytest.fixture
def stream():
    return Stream()


def reader_of(stream, *inputs):
    model = SimpleNamespace(
        stepper=SimpleNamespace(model=StepModel(inputs or (FRAME,), (), ())),
        check_steps=lambda steps: None,
        card=SimpleNamespace(name="m"),
    )
    return FrameReader(model, stream)


def tensor(raw=RAW, **fields):
    return pb.Tensor(raw=raw, **fields)


def request(*inputs, **fields):
    return pb.StreamStepRequest(frame=pb.StepFrame(inputs=inputs, **fields))


@pytest.mark.parametrize(
    "fields",
    [{}, {"name": "frame"}, {"data_type": pb.DATA_TYPE_FLOAT32}, {"shape": [4]},
     {"name": "frame", "data_type": pb.DATA_TYPE_FLOAT32, "shape": [1, 4]}],
    ids=["raw alone", "named", "typed", "of a step's shape", "in full"],
)  # fmt: skip
def test_a_frame_like_the_last_one_is_taken_by_its_bytes(stream, fields):
    reader = reader_of(stream)
    sent = request(tensor(OTHER, **fields)).SerializeToString()
    assert not reader.take(sent), "nothing was read yet"
    reader.push(request(tensor(**fields)).frame)
    assert reader.take(sent)
    assert stream.taken == [((OTHER,), 1)]


def test_several_steps_are_taken_too(stream):
    reader = reader_of(stream)
    reader.push(request(tensor(RAW * 3, shape=[3, 4])).frame)
    assert reader.take(request(tensor(OTHER * 3, shape=[3, 4])).SerializeToString())
    assert stream.taken == [((OTHER * 3,), 3)]


@pytest.mark.parametrize(
    "sent",
    [request(tensor(), reset=True), request(tensor(), deadline_seconds=1.0),
     request(tensor(RAW * 2)), request(tensor(name="frame")), request(tensor(name="x" * 7)),
     request(pb.Tensor(floats=[1.0] * 4)), request(), pb.StreamStepRequest(),
     pb.StreamStepRequest(start=pb.StreamStepStart(model="m" * 20))],
)  # fmt: skip
def test_any_other_request_is_left_to_be_read(stream, sent):
    reader = reader_of(stream)
    reader.push(request(tensor()).frame)
    assert not reader.take(sent.SerializeToString())
    assert stream.taken == []


@pytest.mark.parametrize(
    ("inputs", "frame"),
    [((FRAME,), request(tensor(), reset=True)),
     ((FRAME,), request(tensor(), deadline_seconds=1.0)),
     ((FRAME,), request(pb.Tensor(floats=[1.0] * 4))),
     ((FramePort("frame", "bool", (4,)),), request(tensor(b"\0\1\0\1"))),
     ((FRAME, FramePort("b", "float32", (4,))),
      request(tensor(name="frame"), tensor(name="b")))],
    ids=["reset", "of a deadline", "typed values", "truth values", "two inputs"],
)  # fmt: skip
def test_what_must_be_looked_at_each_time_is_not_known_by_its_bytes(stream, inputs, frame):
    reader = reader_of(stream, *inputs)
    reader.push(frame.frame)
    assert len(stream.pushed) == 1
    assert not reader.take(frame.SerializeToString())


def test_fields_that_are_unknown_are_left_to_be_read(stream):
    """A frame with one is longer than it would be without."""
    reader = reader_of(stream)
    odd = request(tensor())
    odd.frame.inputs[0].MergeFromString(b"\xf8\x01\x05")
    reader.push(odd.frame)
    assert not reader.take(odd.SerializeToString())
    assert reader.take(request(tensor(OTHER)).SerializeToString())
    assert stream.taken == [((OTHER,), 1)]


def test_without_room_nothing_is_taken(stream):
    reader = reader_of(stream)
    reader.push(request(tensor()).frame)
    stream.has_room = False
    assert not reader.take(request(tensor()).SerializeToString())


PORTS = (FramePort("level", "float32", (4,)), FramePort("mean", "float16", (40,)))
ANSWERS = (RAW, bytes(range(80)))


@pytest.mark.parametrize("position", [0, 1, 127, 128, 16_383, 16_384, 2**21, 2**32 - 1])
@pytest.mark.parametrize("outputs", [(0,), (1,), (0, 1), (1, 0)])
def test_answers_by_hand_are_what_protobuf_writes(position, outputs):
    encoder = AnswerEncoder(PORTS, outputs, False)
    answers = [FrameAnswered(position, 1, ANSWERS, 16), FrameAnswered(3, 1, ANSWERS, 16)]
    assert encoder(answers) == encoder.response(answers).SerializeToString(deterministic=True)
