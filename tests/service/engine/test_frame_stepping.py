"""The engine of frames over a model that is pure arithmetic."""

import numpy as np
import pytest

from bundle.manifest import StateTensor
from service.engine.errors import EngineFailed, NotFinite, WrongInput
from service.engine.frame_stepping import Frame, FrameEngine, shared_of
from service.engine.requests import (
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    FrameAnswered,
    ResumePolicy,
    StepRequest,
)
from service.engine.shares import Share
from service.step_model import FramePort, StepModel
from tests.service.engine.fakes import Clock, Reader, Recorder

MODEL = StepModel(
    (FramePort("frame", "float32", (2,)), FramePort("flag", "bool", ())),
    (FramePort("sum", "float32", (2,)), FramePort("steps", "int16", ())),
    (StateTensor("total", "float32", (2,), True), StateTensor("count", "int16", (), True)),
)
POISON, CRASH = 666.0, 999.0


class SumRunner:
    """Adds the frames up, times what is shared; a frame may make it compute NaN, or fail."""

    def __init__(self, factors=(1.0, 10.0)):
        self.factors = factors
        self.runs = []

    def attach(self, inputs, outputs):
        self.inputs, self.outputs = inputs, outputs

    def step(self, rows, shared):
        frames = self.inputs["frame"][:rows]
        self.runs.append((rows, shared))
        if (frames == CRASH).any():
            raise RuntimeError("the kernel broke")
        total = self.inputs["total"][:rows] + self.factors[shared] * frames
        total[(frames == POISON).any(axis=1)] = np.nan
        total[self.inputs["flag"][:rows]] *= -1
        self.outputs["sum"][:rows] = self.outputs["next_total"][:rows] = total
        count = self.inputs["count"][:rows] + 1
        self.outputs["steps"][:rows] = self.outputs["next_count"][:rows] = count


class Frames(Recorder):
    """An observer that remembers frames, too."""

    def __init__(self):
        super().__init__()
        self.framed_as = []

    def framed(self, seconds, late, skipped):
        self.framed_as.append((list(seconds), late, skipped))


class Streams:
    """An engine, and what its streams were answered."""

    def __init__(self, capacity=8):
        self.runner, self.clock, self.observer = SumRunner(), Clock(), Frames()
        self.engine = FrameEngine("sums", MODEL, self.runner, capacity, self.clock, self.observer)

    def open(self, room=10**9, caller="", **options):
        sink = Reader(room)
        request = StepRequest(self.clock.now, **options)
        stream = self.engine.open(request, sink, Share(caller))
        self.engine.arrive(stream)
        return stream

    def push(self, stream, *values, **options):
        self.engine.push([(stream, frame(self.clock.now, *values, **options))])

    def run(self):
        while not self.engine.is_idle:
            self.engine.step()


def frame(now, *values, flag=False, **options):
    """A frame of a step for each value, which both numbers of the step are."""
    data = np.repeat(np.array(values, np.float32), 2).tobytes()
    flags = np.full(len(values), flag).tobytes()
    return Frame((data, flags), len(values), now, **options)


def answers(stream):
    return [event for event in stream.sink.events if type(event) is FrameAnswered]


def sums(stream):
    """The first number of each step's sum, frame by frame."""
    return [np.frombuffer(a.outputs[0], np.float32)[::2].tolist() for a in answers(stream)]


@pytest.fixture
def streams():
    return Streams()


def test_frames_are_answered_in_order_with_what_went_before(streams):
    stream = streams.open()
    streams.push(stream, 1.0)
    streams.push(stream, 2.0, 3.0)
    streams.push(stream, 4.0)
    streams.run()
    assert sums(stream) == [[1.0], [3.0, 6.0], [10.0]]
    assert [a.position for a in answers(stream)] == [0, 1, 2]
    assert [a.steps for a in answers(stream)] == [1, 2, 1]
    counts = [np.frombuffer(a.outputs[1], np.int16).tolist() for a in answers(stream)]
    assert counts == [[1], [2, 3], [4]]


def test_streams_that_are_ready_share_a_step(streams):
    several = [streams.open() for _ in range(5)]
    for number, stream in enumerate(several):
        streams.push(stream, float(number), float(number))
    streams.run()
    assert streams.runner.runs == [(5, 0), (5, 0)]
    assert [sums(s) for s in several] == [[[n, 2.0 * n]] for n in map(float, range(5))]


def test_a_silent_stream_keeps_its_state_and_takes_no_row(streams):
    loud, silent = streams.open(), streams.open()
    streams.push(silent, 5.0)
    streams.run()
    for _ in range(3):
        streams.push(loud, 1.0)
        streams.run()
    assert streams.runner.runs[1:] == [(1, 0)] * 3
    streams.push(silent, 1.0)
    streams.run()
    assert sums(silent) == [[5.0], [6.0]]


def test_streams_of_another_shared_value_run_apart(streams):
    plain, tenfold = streams.open(), streams.open(shared=1)
    for stream in (plain, tenfold):
        streams.push(stream, 1.0)
    streams.run()
    assert sorted(streams.runner.runs) == [(1, 0), (1, 1)]
    assert (sums(plain), sums(tenfold)) == ([[1.0]], [[10.0]])


def test_more_streams_than_rows_take_turns_by_caller():
    streams = Streams(capacity=2)
    many = [streams.open(caller="many") for _ in range(6)]
    one = streams.open(caller="one")
    for stream in (*many, one):
        streams.push(stream, 1.0)
    streams.engine.step()
    assert len(answers(one)) == 1, "the caller with one stream waits for no other caller's six"
    streams.run()
    assert all(len(answers(stream)) == 1 for stream in many)
    assert max(rows for rows, _ in streams.runner.runs) == 2


def test_a_reset_begins_anew_from_zeros(streams):
    stream = streams.open()
    streams.push(stream, 1.0)
    streams.push(stream, 2.0, resets=True)
    streams.push(stream, 3.0)
    streams.run()
    assert sums(stream) == [[1.0], [2.0], [5.0]]
    assert [a.position for a in answers(stream)] == [0, 1, 2]


def test_a_late_frame_is_answered_late_and_counted(streams):
    stream = streams.open()
    streams.push(stream, 1.0, deadline=streams.clock.now + 1.0)
    streams.clock.now += 2.0
    streams.run()
    assert [(a.is_late, a.is_skipped) for a in answers(stream)] == [(True, False)]
    assert sums(stream) == [[1.0]]
    assert [(late, skipped) for _, late, skipped in streams.observer.framed_as] == [(1, 0)]


def test_a_late_frame_that_may_be_skipped_leaves_the_state_alone(streams):
    stream = streams.open()
    streams.push(stream, 1.0)
    streams.push(stream, 50.0, deadline=streams.clock.now + 1.0, is_optional=True)
    streams.engine.step()
    streams.clock.now += 2.0
    streams.push(stream, 2.0)
    streams.run()
    assert [(a.is_late, a.is_skipped) for a in answers(stream)] == [
        (False, False), (True, True), (False, False),
    ]  # fmt: skip
    assert answers(stream)[1].outputs == ()
    assert np.frombuffer(answers(stream)[2].outputs[0], np.float32)[0] == 3.0
    assert (stream.late, stream.skipped, stream.steps) == (1, 1, 2)


def test_nan_ends_its_own_stream_alone(streams):
    broken, other = streams.open(), streams.open()
    streams.push(broken, POISON)
    streams.push(other, 1.0)
    streams.run()
    streams.push(other, 2.0)
    streams.run()
    assert isinstance(broken.sink.last, Failed)
    assert isinstance(broken.sink.last.error, NotFinite)
    assert sums(other) == [[1.0], [3.0]]


def test_nan_of_the_caller_is_said_to_be_the_callers(streams):
    stream = streams.open()
    streams.push(stream, float("nan"))
    streams.run()
    assert isinstance(stream.sink.last.error, WrongInput)
    assert "input 'frame' of frame 0 holds NaN" in str(stream.sink.last.error)


def test_a_frame_that_breaks_the_graph_is_found_row_by_row(streams):
    several = [streams.open() for _ in range(4)]
    for number, stream in enumerate(several):
        streams.push(stream, CRASH if number == 2 else 1.0)
    streams.run()
    assert streams.runner.runs == [(4, 0)] + [(1, 0)] * 4
    error = several[2].sink.last.error
    assert isinstance(error, EngineFailed)
    assert "frame 0 of this stream" in str(error)
    for stream in (several[0], several[1], several[3]):
        assert sums(stream) == [[1.0]]
        streams.push(stream, 1.0)
    streams.run()
    assert sums(several[0]) == [[1.0], [2.0]]


def test_a_closed_stream_ends_once_every_frame_is_answered(streams):
    stream = streams.open()
    streams.push(stream, 1.0, 2.0)
    streams.engine.close_input(stream)
    streams.run()
    assert isinstance(stream.sink.last, Finished)
    assert stream.sink.last.reason is FinishReason.CLOSED
    assert (stream.sink.last.input_tokens, stream.sink.last.output_tokens) == (2, 1)
    silent = streams.open()
    streams.engine.close_input(silent)
    streams.run()
    assert silent.sink.last.output_tokens == 0


def test_a_stream_goes_on_from_its_checkpoint_with_the_same_bytes(streams):
    whole, first = (
        streams.open(shared=1),
        streams.open(shared=1, checkpoints=ResumePolicy(at_end=True)),
    )
    for value in (0.1, 0.2, 0.7, 0.3):
        streams.push(whole, value)
    for value in (0.1, 0.2):
        streams.push(first, value)
    streams.engine.close_input(first)
    streams.run()
    (point,) = [e.snapshot for e in first.sink.events if type(e) is Checkpoint]
    assert (point.made, shared_of(point)) == (2, 1)
    second = streams.open(shared=1, resumed=point)
    for value in (0.7, 0.3):
        streams.push(second, value)
    streams.run()
    assert sums(first) + sums(second) == sums(whole)
    assert [a.position for a in answers(second)] == [2, 3]


def test_checkpoints_come_every_so_many_frames(streams):
    stream = streams.open(checkpoints=ResumePolicy(every=2))
    for _ in range(5):
        streams.push(stream, 1.0)
    streams.run()
    points = [event.snapshot for event in stream.sink.events if type(event) is Checkpoint]
    assert [(p.made, p.state["total"][0], p.state["count"]) for p in points] == [
        (2, 2.0, 2), (4, 4.0, 4),
    ]  # fmt: skip


def test_a_handed_over_stream_says_where_it_is(streams):
    stream = streams.open()
    streams.push(stream, 1.0)
    streams.engine.close_input(stream, is_handed_over=True)
    streams.run()
    *_, point, last = stream.sink.events
    assert (type(point), point.snapshot.made) == (Checkpoint, 1)
    assert last.reason is FinishReason.HANDED_OVER


def test_a_cancelled_stream_frees_its_row_zeroed(streams):
    stream = streams.open()
    streams.push(stream, 1.0)
    streams.run()
    row = stream.row
    streams.push(stream, 1.0)
    streams.engine.cancel(stream)
    streams.run()
    assert len(answers(stream)) == 1
    following = streams.open()
    assert following.row == row
    streams.push(following, 4.0)
    streams.run()
    assert sums(following) == [[4.0]]


def test_a_reader_that_is_behind_holds_its_own_stream_up(streams):
    slow, other = streams.open(room=2), streams.open()
    for _ in range(5):
        streams.push(slow, 1.0)
        streams.push(other, 1.0)
    streams.run()
    assert len(answers(slow)) < 5
    assert len(answers(other)) == 5
    slow.sink.room = 10**9
    streams.engine.resume(slow)
    streams.run()
    assert sums(slow) == [[1.0], [2.0], [3.0], [4.0], [5.0]]


def test_frames_after_the_end_are_let_go(streams):
    stream = streams.open()
    streams.engine.cancel(stream)
    streams.push(stream, 1.0)
    assert streams.engine.is_idle
    assert stream.sink.events == []


def test_fail_ends_every_stream_with_the_error(streams):
    waiting, ready = streams.open(), streams.open()
    streams.push(ready, 1.0)
    error = EngineFailed("it broke")
    sinks = streams.engine.fail(error)
    assert {id(sink) for sink in sinks} == {id(waiting.sink), id(ready.sink)}
    assert waiting.sink.last == ready.sink.last == Failed(error)
    assert streams.engine.is_idle
    assert streams.engine.fail(error) == []


def test_the_table_grows_with_the_streams(streams):
    many = [streams.open() for _ in range(50)]
    for number, stream in enumerate(many):
        streams.push(stream, float(number))
    streams.run()
    for stream in many:
        streams.push(stream, 1.0)
    streams.run()
    assert [sums(s) for s in many] == [[[n], [n + 1.0]] for n in map(float, range(50))]


def test_random_mixes_are_answered_as_each_stream_alone():
    """Whatever shares the steps, and whoever leaves meanwhile."""
    rng = np.random.default_rng(4)
    streams = Streams(capacity=3)
    opened, sent = [], {}
    for _ in range(400):
        if not opened or rng.random() < 0.1:
            stream = streams.open(caller=str(rng.integers(3)), shared=int(rng.integers(2)))
            opened.append(stream)
            sent[id(stream)] = []
        stream = opened[rng.integers(len(opened))]
        if rng.random() < 0.02:
            streams.engine.cancel(stream)
            opened.remove(stream)
            continue
        values = rng.integers(1, 9, rng.integers(1, 4)).astype(float).tolist()
        streams.push(stream, *values)
        sent[id(stream)].append(values)
        if rng.random() < 0.6:
            streams.engine.step()
    streams.run()
    for stream in opened:
        factor, total, expected = streams.runner.factors[stream.request.shared], 0.0, []
        for values in sent[id(stream)]:
            levels = []
            for value in values:
                total += factor * value
                levels.append(total)
            expected.append(levels)
        assert sums(stream) == expected
