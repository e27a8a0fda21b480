"""Frames as messages, and one stream of them over several calls."""

import numpy as np
import pytest

from unroll import Frame, RequestFailed, Retries
from unroll.replay_buffer import FRAMES, ReadParts
from unroll.step_failover import ResumableStepStream
from unroll.step_streams import to_frame, to_result
from unroll.v1 import unroll_pb2 as pb

RETRIES = Retries(attempts=3)
BROKEN = RequestFailed("UNAVAILABLE", "the connection broke")


def only(frame):
    (tensor,) = to_frame(frame).inputs
    return tensor


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", "?"])
def test_an_array_goes_as_its_bytes_type_and_shape(dtype):
    values = np.array([[1, 0, 1], [0, 1, 1]]).astype(dtype)
    tensor = only(values)
    assert tensor.name == ""
    assert pb.DataType.Name(tensor.data_type) == f"DATA_TYPE_{values.dtype.name.upper()}"
    assert (list(tensor.shape), tensor.raw) == ([2, 3], values.tobytes())


def test_order_and_strides_of_an_array_do_not_matter():
    values = np.arange(12, dtype=">f4").reshape(3, 4)[::2, ::-1]
    assert only(values).raw == np.ascontiguousarray(values.astype("<f4")).tobytes()


def test_named_inputs_and_what_is_said_of_one_frame():
    frame = Frame({"a": np.zeros(1, np.int8), "b": b"\1"}, reset=True, deadline_seconds=0.5)
    message = to_frame(frame)
    assert [(tensor.name, tensor.raw) for tensor in message.inputs] == [("a", b"\0"), ("b", b"\1")]
    assert (message.reset, message.deadline_seconds) == (True, 0.5)
    assert not to_frame(np.zeros(1)).HasField("deadline_seconds")


@pytest.mark.parametrize(
    ("numbers", "field"), [([0.5, 1], "floats"), ([1, 2], "integers"), ([True], "booleans")]
)
def test_numbers_go_as_typed_values(numbers, field):
    assert list(getattr(only(numbers), field)) == numbers


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="cannot be sent"):
        to_frame(np.array(["a"]))


def test_answers_are_arrays_of_steps():
    values = np.arange(6, dtype=np.float16).reshape(3, 2)
    tensor = pb.Tensor(
        name="out", data_type=pb.DATA_TYPE_FLOAT16, shape=[3, 2], raw=values.tobytes()
    )
    result = to_result(pb.StepResult(position=4, steps=3, outputs=[tensor]))
    assert result.outputs["out"].dtype == np.float16
    assert result.outputs["out"].tolist() == values.tolist()
    assert (result.position, result.steps, result.late) == (4, 3, False)


class Sent:
    """A stream of so many frames whose calls a test answers by hand."""

    def __init__(self, frames=10, **options):
        self.parts = ReadParts((np.full(2, n, np.float32) for n in range(frames)), True, FRAMES)
        self.stream = ResumableStepStream("m", options, RETRIES, self.parts, lambda: 0.0)
        self.got = []

    def sends(self, count):
        """The frames that the attempt under way sends, as their first numbers."""
        attempt = self.stream.attempt
        requests = self.parts.requests(attempt.start, attempt.first, attempt.skip, lambda: True)
        assert next(requests).HasField("start")
        sent = [next(requests).frame.inputs[0].raw for _ in range(count)]
        return [int(np.frombuffer(raw, np.float32)[0]) for raw in sent]

    def answer(self, *positions, point=None, **fields):
        results = [pb.StepResult(position=position, steps=1) for position in positions]
        response = pb.StreamStepResponse(results=results, **fields)
        if point is not None:
            response.resume_points.add(token=b"t%d" % point, next_position=point)
        chunk = self.stream.take(response)
        self.got += [result.position for result in chunk.results] if chunk else []
        return chunk


def test_a_broken_call_goes_on_from_its_last_resume_token():
    sent = Sent()
    assert sent.sends(5) == [0, 1, 2, 3, 4]
    sent.answer(0, 1, point=2)
    sent.answer(2, 3)
    sent.stream.fail(BROKEN)
    assert sent.stream.attempt.start.resume_token == b"t2"
    assert sent.sends(4) == [2, 3, 4, 5]
    sent.answer(2, 3, 4, 5)  # the first two of which are there
    assert sent.got == [0, 1, 2, 3, 4, 5]


def test_without_a_token_everything_is_sent_again():
    sent = Sent()
    sent.sends(3)
    sent.answer(0, 1)
    sent.stream.fail(BROKEN)
    assert not sent.stream.attempt.start.resume_token
    assert sent.sends(3) == [0, 1, 2]


def test_a_hand_over_goes_on_at_once_with_what_was_not_answered():
    sent = Sent()
    sent.sends(4)
    usage = pb.StepUsage(frames=2, steps=2)
    assert sent.answer(0, 1, point=2, usage=usage, handed_over=True).end is None
    assert sent.stream.attempt.wait_seconds == 0
    assert sent.sends(2) == [2, 3]
    sent.answer(*range(2, 10))
    chunk = sent.answer(usage=pb.StepUsage(frames=8, steps=8))
    assert (chunk.end.frames, chunk.end.steps) == (10, 10)
    assert sent.stream.is_over


def test_an_answer_that_is_missing_fails_the_stream():
    sent = Sent()
    sent.sends(3)
    with pytest.raises(RequestFailed, match="an answer is missing"):
        sent.answer(1)


def test_a_refused_frame_is_raised_although_a_last_message_came():
    sent = Sent()
    sent.sends(3)
    sent.answer(0, 1, usage=pb.StepUsage(frames=2))
    with pytest.raises(RequestFailed, match="input"):
        sent.stream.fail(RequestFailed("INVALID_ARGUMENT", "input 'x' is unknown"))


def test_a_status_that_is_lost_after_all_answers_changes_nothing():
    sent = Sent(frames=2)
    sent.sends(2)
    assert sent.parts.read(2) is None
    sent.answer(0, 1, usage=pb.StepUsage(frames=2))
    sent.stream.fail(BROKEN)
    assert sent.stream.is_over


def test_too_many_failures_in_a_row_are_raised():
    sent = Sent()
    sent.stream.fail(BROKEN)
    sent.stream.fail(BROKEN)
    with pytest.raises(RequestFailed, match="the connection broke"):
        sent.stream.fail(BROKEN)
