"""StreamStep over real channels: the same numbers whatever else runs, on either front end."""

import asyncio
import queue
import re
import threading
import time
from functools import partial

import grpc
import numpy as np
import pytest

from service.config import Config
from service.serving.stepper import MOST_WAITING_FRAMES
from tests.conftest import RunningService
from tests.service.grpc.test_tag_streams import SMALL_WINDOW
from tests.step_models import DECAY, FRAME, expected_levels, write_step_bundle
from unroll import AsyncClient, Client, Frame, RequestFailed, ResumePoint, StateChange, Watch
from unroll.channel import NO_RETRIES
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

ADDRESSES = {"device": "cpu", "address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
FRAMES = np.random.default_rng(3).normal(size=(70, FRAME)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One that takes a value that steps share, one that does not, one that is not exact."""
    root = tmp_path_factory.mktemp("stepping")
    write_step_bundle(root, attributes={"sample_rate": 16000})
    write_step_bundle(root, "gained", gains=(1.0, 3.0))
    write_step_bundle(root, "close", batching="inexact")
    return root


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("00112233445566778899aabbccddeeff\n")
    return path


@pytest.fixture(scope="module", params=["auto", "grpcio"])
def shared(request, models, keys):
    service = RunningService(
        Config(models=models, resume_keys=keys, front_end=request.param, **ADDRESSES)
    )
    yield service
    service.stop()


@pytest.fixture
def client(shared):
    with Client(shared.target, timeout=30, retries=NO_RETRIES) as client:
        yield client


@pytest.fixture
def stub(shared):
    with grpc.insecure_channel(shared.target) as channel:
        yield unroll_pb2_grpc.UnrollServiceStub(channel)


class Reported:
    """All messages of a stream, gathered."""

    def __init__(self, chunks):
        self.chunks = list(chunks)
        self.results = [result for chunk in self.chunks for result in chunk.results]
        self.points = [point for chunk in self.chunks for point in chunk.resume_points]
        self.end = self.chunks[-1].end if self.chunks else None

    @property
    def levels(self):
        return np.concatenate([result.outputs["level"] for result in self.results])


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


def engine_of(service, name="leaky"):
    return service.app.registry.get(name).engine


def nothing_is_left(service, name="leaky"):
    model = service.app.registry.get(name)
    wait_until(lambda: service.app.inflight.calls == 0 and model.thread.open_work == 0)
    wait_until(lambda: not model.engine._open)
    assert len(model.engine.rows._free) == model.engine.rows._rows
    assert model.gatherer.open == 0
    assert service.app.budget.used_of("frames") == 0


def taken_from(frames):
    """Until None: iter() would compare arrays with it."""
    while (frame := frames.get()) is not None:
        yield frame


def bits(array):
    return np.ascontiguousarray(array).tobytes()


# -- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("failover", [True, False])
def test_frames_are_answered_with_the_models_numbers(shared, client, failover):
    reported = Reported(client.stream_step("leaky", FRAMES, failover=failover))
    assert bits(reported.levels) == bits(expected_levels(FRAMES))
    assert [result.position for result in reported.results] == list(range(70))
    assert (reported.end.frames, reported.end.steps) == (70, 70)
    nothing_is_left(shared)


def test_several_steps_a_frame_give_the_bits_of_one_a_frame(client):
    pieces = np.split(FRAMES, [1, 4, 4 + 64])
    reported = Reported(client.stream_step("leaky", pieces))
    assert bits(reported.levels) == bits(expected_levels(FRAMES))
    assert [result.steps for result in reported.results] == [1, 3, 64, 2]


def test_many_streams_at_once_get_the_bits_they_get_alone(shared):
    sequences = [np.random.default_rng(seed).normal(size=(40, FRAME)) for seed in range(24)]
    found = {}

    def run(number):
        frames = sequences[number].astype(np.float32)
        with Client(shared.target, timeout=30) as client:
            gain = {"gain": 3.0} if number % 2 else {}
            found[number] = Reported(client.stream_step("gained", frames, shared=gain)).levels

    threads = [threading.Thread(target=run, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, sequence in enumerate(sequences):
        expected = expected_levels(sequence, 3.0 if number % 2 else 1.0)
        assert bits(found[number]) == bits(expected)
    nothing_is_left(shared, "gained")


def test_each_frame_is_answered_before_the_next_one_is_sent(client):
    frames = queue.Queue()
    chunks = client.stream_step("leaky", taken_from(frames))
    expected = expected_levels(FRAMES)
    for number in range(20):
        frames.put(FRAMES[number])
        (result,) = next(chunks).results
        assert bits(result.outputs["level"]) == bits(expected[number : number + 1])
    frames.put(None)
    assert Reported(chunks).end.frames == 20


def test_outputs_that_were_not_asked_for_do_not_come(client):
    reported = Reported(client.stream_step("leaky", FRAMES[:3], outputs=["mean"]))
    assert [set(result.outputs) for result in reported.results] == [{"mean"}] * 3
    means = expected_levels(FRAMES[:3]).mean(axis=1)
    found = np.concatenate([result.outputs["mean"] for result in reported.results])
    assert found == pytest.approx(means, abs=1e-6)


def test_typed_values_go_both_ways(stub):
    def requests():
        yield pb.StreamStepRequest(start=pb.StreamStepStart(model="leaky", typed=True))
        for frame in FRAMES[:5]:
            tensor = pb.Tensor(floats=frame.tolist())
            yield pb.StreamStepRequest(frame=pb.StepFrame(inputs=[tensor]))

    responses = stub.StreamStep(requests(), timeout=20)
    results = [result for response in responses for result in response.results]
    levels = np.array([result.outputs[1].floats for result in results], np.float32)
    assert bits(levels) == bits(expected_levels(FRAMES[:5]))
    assert results[0].outputs[1].shape == [1, FRAME]


def test_a_reset_begins_anew(client):
    frames = [FRAMES[0], Frame(FRAMES[1], reset=True), FRAMES[2]]
    reported = Reported(client.stream_step("leaky", frames))
    expected = np.concatenate([expected_levels(FRAMES[:1]), expected_levels(FRAMES[1:3])])
    assert bits(reported.levels) == bits(expected)


def test_the_card_says_what_is_read_and_answered(client):
    stepper = client.get_model("gained").stepper
    assert [(port.name, list(port.shape)) for port in stepper.inputs] == [("frame", [FRAME])]
    assert [port.name for port in stepper.outputs] == ["mean", "level"]
    assert [(one.name, list(one.choices)) for one in stepper.shared] == [("gain", [1.0, 3.0])]
    assert stepper.batching == pb.BATCHING_EXACT
    assert client.get_model("gained").batch_invariant
    inexact = client.get_model("close")
    assert (inexact.stepper.batching, inexact.batch_invariant) == (pb.BATCHING_INEXACT, False)
    assert (inexact.batching, inexact.batching_reason) == (
        inexact.stepper.batching, inexact.stepper.reason,
    )  # fmt: skip
    assert inexact.stepper.reason == "a test says so"
    assert dict(client.get_model("leaky").stepper.attributes) == {"sample_rate": "16000"}


# -- deadlines ------------------------------------------------------------------------------


def slow_steps(service, monkeypatch, seconds, name="leaky"):
    engine = engine_of(service, name)
    step = engine.runner.step

    def slow(rows, shared):
        time.sleep(seconds)
        step(rows, shared)

    monkeypatch.setattr(engine.runner, "step", slow)


def test_late_frames_are_answered_late_and_counted(shared, client, monkeypatch):
    before = shared.metric("unroll_late_frames_total", model="leaky", outcome="late")
    slow_steps(shared, monkeypatch, 0.02)
    reported = Reported(client.stream_step("leaky", FRAMES[:5], deadline_seconds=0.001))
    assert [result.late for result in reported.results] == [True] * 5
    assert bits(reported.levels) == bits(expected_levels(FRAMES[:5]))
    assert (reported.end.late_frames, reported.end.skipped_frames) == (5, 0)
    after = shared.metric("unroll_late_frames_total", model="leaky", outcome="late")
    assert after - before == 5


def test_late_frames_are_skipped_where_that_is_asked_for(shared, client, monkeypatch):
    slow_steps(shared, monkeypatch, 0.05)
    frames = [Frame(frame, deadline_seconds=0.02) for frame in FRAMES[:10]]
    reported = Reported(client.stream_step("leaky", frames, skip_late=True))
    taken = [n for n, result in enumerate(reported.results) if not result.skipped]
    assert 0 < len(taken) < 10
    assert len(reported.results) == 10
    assert reported.end.skipped_frames == 10 - len(taken)
    levels = np.concatenate([reported.results[n].outputs["level"] for n in taken])
    assert bits(levels) == bits(expected_levels(FRAMES[taken]))


def test_frames_in_time_are_not_late(client):
    reported = Reported(client.stream_step("leaky", FRAMES[:5], deadline_seconds=20.0))
    assert not any(result.late for result in reported.results)


# -- going on -------------------------------------------------------------------------------


def test_a_stream_goes_on_from_any_of_its_resume_tokens(client):
    reported = Reported(client.stream_step("leaky", FRAMES, resume_every=16, resume_at_end=True))
    assert [point.next_position for point in reported.points] == [16, 32, 48, 64, 70]
    expected = expected_levels(FRAMES)
    for point in reported.points[:-1]:
        rest = FRAMES[point.next_position :]
        resumed = Reported(client.stream_step("leaky", rest, resume_token=point.token))
        assert bits(resumed.levels) == bits(expected[point.next_position :])
        assert resumed.results[0].position == point.next_position


def test_a_resumed_stream_keeps_what_its_steps_share(client):
    first = Reported(
        client.stream_step("gained", FRAMES[:5], shared={"gain": 3.0}, resume_at_end=True)
    )
    (point,) = first.points
    rest = Reported(client.stream_step("gained", FRAMES[5:], resume_token=point.token))
    assert bits(np.concatenate([first.levels, rest.levels])) == bits(expected_levels(FRAMES, 3.0))
    again = {"shared": {"gain": 1.0}, "resume_token": point.token}
    with pytest.raises(RequestFailed, match="began with gain 3; send the same, or none"):
        list(client.stream_step("gained", FRAMES[5:], **again))


def resume_point(client, model, frames):
    (point,) = Reported(client.stream_step(model, frames, resume_at_end=True)).points
    return point


def test_a_stream_goes_on_from_a_changed_state(client):
    """Of a leaky integrator each answer follows from the state before it."""
    point = resume_point(client, "leaky", FRAMES[:16])
    values = np.linspace(-1.0, 2.0, FRAME, dtype=np.float32)

    def go_on(*changes, token=point.token):
        options = {"resume_token": token, "set_state": changes, "resume_at_end": True}
        return Reported(client.stream_step("leaky", FRAMES[16:24], **options))

    change = StateChange("total", range(FRAME), values.tolist())
    forked, again, plain = go_on(change), go_on(change), go_on()
    first = values * np.float32(DECAY) + FRAMES[16]
    assert bits(forked.levels[0]) == bits(first)
    assert bits(forked.levels) == bits(again.levels)
    assert bits(plain.levels) == bits(expected_levels(FRAMES)[16:24])
    (changed,) = {forked.points[-1].changed, again.points[-1].changed}
    assert (len(changed), point.changed, plain.points[-1].changed) == (64, "", "")
    assert go_on(token=forked.points[-1].token).points[-1].changed == changed
    one = StateChange("total", [1], [0.5])
    assert go_on(one, token=forked.points[-1].token).points[-1].changed not in ("", changed)


def test_streams_begin_from_a_named_state(client):
    """As often as one likes; it keeps what its steps share."""
    token = resume_point(client, "leaky", FRAMES[:16]).token
    client.create_state("quiet", "leaky", resume_token=token, replace=True)
    for _ in range(2):
        after = Reported(client.stream_step("leaky", FRAMES[16:24], state="quiet"))
        assert bits(after.levels) == bits(expected_levels(FRAMES)[16:24])
    options = {"shared": {"gain": 3.0}, "resume_at_end": True}
    (point,) = Reported(client.stream_step("gained", FRAMES[:5], **options)).points
    client.create_state("loud", "gained", resume_token=point.token, replace=True)
    assert client.list_states("gained")[0].method == "StreamStep"
    after = Reported(client.stream_step("gained", FRAMES[5:9], state="loud"))
    assert bits(after.levels) == bits(expected_levels(FRAMES, 3.0)[5:9])
    with pytest.raises(RequestFailed, match="is for model 'gained'"):
        list(client.stream_step("leaky", FRAMES[:1], state="loud"))


def test_a_change_needs_a_token_and_a_unit_that_there_is(client):
    point = resume_point(client, "leaky", FRAMES[:3])
    for changes, token, message in (
        ([StateChange("total", [0], [1.0])], None, "set_state changes what a resume token holds"),
        ([StateChange("count", [0], [1.0])], point.token, "no state 'count'; it has total"),
        ([StateChange("shared", [0], [1.0])], point.token, "no state 'shared'"),
        ([StateChange("total", [FRAME], [1.0])], point.token, "units has"),
    ):
        with pytest.raises(RequestFailed, match=f"INVALID_ARGUMENT.*{message}"):
            list(client.stream_step("leaky", FRAMES, resume_token=token, set_state=changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t[:-1] + bytes((t[-1] ^ 1,)), "was changed on its way"),
        (lambda t: b"no token", "is no resume token"),
    ],
)
def test_a_spoilt_resume_token_is_refused(client, spoil, message):
    point: ResumePoint = resume_point(client, "leaky", FRAMES[:3])
    with pytest.raises(RequestFailed, match=message):
        list(client.stream_step("leaky", FRAMES, resume_token=spoil(point.token)))


def test_a_resume_token_of_another_model_is_refused(client):
    point = resume_point(client, "leaky", FRAMES[:3])
    with pytest.raises(RequestFailed, match="is for model 'leaky', this server runs 'gained'"):
        list(client.stream_step("gained", FRAMES, resume_token=point.token))


def test_a_stop_hands_streams_over_to_another_server(models, keys, start_service):
    start = partial(start_service, models=models, resume_keys=keys, grace_seconds=0.3)
    first, second = start(), start()
    frames, target = queue.Queue(), f"{first.target},{second.target}"
    levels = []
    with Client(target, timeout=60) as client:
        chunks = client.stream_step("leaky", taken_from(frames))
        for frame in FRAMES[:10]:
            frames.put(frame)
            levels += [result.outputs["level"] for result in next(chunks).results]
        for service in (first, second):
            if service.app.registry.get("leaky").thread.open_work:
                running = service
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        for frame in FRAMES[10:]:
            frames.put(frame)
            time.sleep(0.02)
        frames.put(None)
        rest = Reported(chunks)
        stopping.join()
    assert bits(np.concatenate([*levels, rest.levels])) == bits(expected_levels(FRAMES))
    assert rest.end.frames == 70


def test_without_failover_the_last_message_says_where_the_stream_is(models, start_service):
    service = start_service(models=models, grace_seconds=0.3)
    frames = queue.Queue()
    with Client(service.target, timeout=30) as client:
        chunks = client.stream_step("leaky", taken_from(frames), failover=False)
        frames.put(FRAMES[0])
        assert len(next(chunks).results) == 1
        assert service.stop()
        reported = Reported(chunks)
        frames.put(None)
    assert reported.end.handed_over
    assert [point.next_position for point in reported.points] == [1]


# -- refusals -------------------------------------------------------------------------------

RAW = FRAMES[0].tobytes()


def named(**fields):
    return pb.StreamStepRequest(frame=pb.StepFrame(inputs=[pb.Tensor(**fields)]))


GOOD = named(raw=RAW)
MALFORMED = {
    "another name": (named(name="x", raw=RAW), "input 'x' is unknown; .* takes 'frame'"),
    "a long name": (named(name="x" * 5000, raw=RAW), "is unknown"),
    "no values": (named(name="frame"), "has 0 bytes; a step is 16"),
    "too few bytes": (named(raw=RAW[:-4]), "has 12 bytes; a step is 16"),
    "odd bytes": (named(raw=RAW + b"x"), "has 17 bytes; a step is 16"),
    "another type": (
        named(data_type=pb.DATA_TYPE_FLOAT64, raw=RAW),
        "is float64, the model takes float32",
    ),
    "an unknown type": (named(data_type=77, raw=RAW), "is 77, the model takes float32"),
    "raw and typed": (named(raw=RAW, floats=[1.0] * FRAME), "raw bytes and typed values"),
    "integers for floats": (named(integers=[1] * FRAME), "has integers; fill floats"),
    "doubles for floats": (named(doubles=[1.0] * FRAME), "has doubles; fill floats"),
    "booleans for floats": (named(booleans=[True] * FRAME), "has booleans; fill floats"),
    "two kinds of values": (named(floats=[1.0], integers=[1]), "has integers; fill floats"),
    "too few values": (named(floats=[1.0] * 3), "has 12 bytes; a step is 16"),
    "a shape of more": (named(shape=[2, FRAME], raw=RAW), "which are 1 steps"),
    "a shape of less": (named(shape=[FRAME], raw=RAW * 2), "which are 2 steps"),
    "another shape": (named(shape=[2, 2], raw=RAW), r"has the shape \[2, 2\]"),
    "a shape of nothing": (named(shape=[0, FRAME], raw=RAW), r"has the shape \[0, 4\]"),
    "a negative shape": (named(shape=[-1, FRAME], raw=RAW), r"has the shape \[-1, 4\]"),
    "many axes": (named(shape=[1] * 900, raw=RAW), "has the shape"),
    "too many steps": (named(raw=RAW * 65), "has 65 steps; .* at most 64 at once"),
    "no input": (pb.StreamStepRequest(frame=pb.StepFrame()), "input 'frame' is missing"),
    "an input twice": (
        pb.StreamStepRequest(frame=pb.StepFrame(inputs=[pb.Tensor(name="frame", raw=RAW)] * 2)),
        "input 'frame' comes twice",
    ),
    "an empty request": (pb.StreamStepRequest(), "has no frame; send frames"),
    "another start": (
        pb.StreamStepRequest(start=pb.StreamStepStart(model="leaky")),
        "has another start",
    ),
    "a negative deadline": (
        pb.StreamStepRequest(frame=pb.StepFrame(inputs=[pb.Tensor(raw=RAW)], deadline_seconds=-1)),
        "deadline_seconds is -1",
    ),
    "an endless deadline": (
        pb.StreamStepRequest(
            frame=pb.StepFrame(inputs=[pb.Tensor(raw=RAW)], deadline_seconds=float("nan"))
        ),
        "deadline_seconds is nan",
    ),
}


def refusal(stub, *requests):
    """What came before the error, and the error."""
    call, results = stub.StreamStep(iter(requests), timeout=20), []
    try:
        for response in call:
            results += response.results
    except grpc.RpcError as error:
        return results, error.code(), error.details()
    raise AssertionError("it was taken")


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_frame_is_refused_after_the_answers_before_it(shared, stub, what):
    request, message = MALFORMED[what]
    start = pb.StreamStepRequest(start=pb.StreamStepStart(model="leaky"))
    results, code, details = refusal(stub, start, GOOD, GOOD, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(message, details), details
    assert [result.position for result in results] == [0, 1]
    nothing_is_left(shared)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"model": "leaky", "shared": {"rate": 1.0}}, "'rate' is unknown; model 'leaky' has none"),
        ({"model": "gained", "shared": {"gain": 2.0}}, "'gain' is 2; choose one of 1, 3"),
        ({"model": "gained", "shared": {"gain": float("nan")}}, "'gain' is nan; choose one of"),
        ({"model": "leaky", "outputs": ["x"]}, "output 'x' is unknown; .*'mean', 'level'"),
        ({"model": "leaky", "outputs": ["mean", "mean"]}, "'mean' is asked for twice"),
        ({"model": "leaky", "deadline_seconds": 1e9}, "deadline_seconds is 1e"),
        ({"model": "leaky", "resume_every": 3}, "resume_every is 3; choose 0"),
    ],
)
def test_a_wrong_start_is_refused_before_any_frame(shared, stub, start, message):
    request = pb.StreamStepRequest(start=pb.StreamStepStart(**start))
    results, code, details = refusal(stub, request, GOOD)
    assert (results, code) == ([], grpc.StatusCode.INVALID_ARGUMENT)
    assert re.search(message, details), details
    nothing_is_left(shared)


def test_a_stream_without_a_start_is_refused(stub):
    _, code, details = refusal(stub, GOOD)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "send one, then frames" in details


def test_other_calls_name_the_one_that_it_answers(client):
    with pytest.raises(RequestFailed, match="'leaky' does not classify; call StreamStep"):
        client.classify("leaky", ["a"])
    with pytest.raises(RequestFailed, match="NOT_FOUND"):
        list(client.stream_step("nobody", FRAMES))


def test_nan_ends_the_callers_own_stream_alone(shared, client):
    frames = queue.Queue()
    other = client.stream_step("leaky", taken_from(frames))
    frames.put(FRAMES[0])
    next(other)
    broken = FRAMES[:3].copy()
    broken[1, 2] = np.nan
    with pytest.raises(RequestFailed, match="input 'frame' of frame 1 holds NaN") as caught:
        list(client.stream_step("leaky", broken))
    assert caught.value.code == "INVALID_ARGUMENT"
    frames.put(FRAMES[1])
    (result,) = next(other).results
    assert bits(result.outputs["level"][0]) == bits(expected_levels(FRAMES[:2])[1])
    frames.put(None)
    assert Reported(other).end.frames == 2
    nothing_is_left(shared)


def test_a_graph_that_fails_ends_the_stream_whose_frame_it_was(shared, client, monkeypatch):
    engine = engine_of(shared)
    step = engine.runner.step

    def failing(rows, shared):
        if (engine._frames["frame"][:rows] == 7.0).any():
            raise RuntimeError("a kernel of its own broke")
        step(rows, shared)

    monkeypatch.setattr(engine.runner, "step", failing)
    frames = queue.Queue()
    other = client.stream_step("leaky", taken_from(frames))
    frames.put(FRAMES[0])
    next(other)
    with pytest.raises(RequestFailed, match="failed on frame 0 of this stream") as caught:
        list(client.stream_step("leaky", [np.full(FRAME, 7.0, np.float32)], failover=False))
    assert caught.value.code == "INTERNAL"
    frames.put(FRAMES[1])
    assert len(next(other).results) == 1
    frames.put(None)
    assert Reported(other).end.frames == 2


# -- callers that leave or do not read --------------------------------------------------------


def test_a_caller_that_leaves_frees_its_row(shared, client):
    frames = queue.Queue()
    chunks = client.stream_step("leaky", taken_from(frames))
    frames.put(FRAMES[0])
    next(chunks)
    assert len(engine_of(shared)._open) == 1
    chunks.close()
    frames.put(None)
    nothing_is_left(shared)


def test_a_caller_that_does_not_read_is_bounded(shared):
    """It is slowed down: what waits for it stays small, and it gets all once it reads."""
    count, sent = 1500, [0]
    data = np.repeat(FRAMES[:1], 64, axis=0)

    def requests():
        yield pb.StreamStepRequest(start=pb.StreamStepStart(model="leaky"))
        tensor = pb.Tensor(raw=data.tobytes())
        for _ in range(count):
            yield pb.StreamStepRequest(frame=pb.StepFrame(inputs=[tensor]))
            sent[0] += 1

    with grpc.insecure_channel(shared.target, options=SMALL_WINDOW) as channel:
        call = unroll_pb2_grpc.UnrollServiceStub(channel).StreamStep(requests(), timeout=120)
        wait_until(lambda: sent[0] > 10)
        before = -1
        while before != sent[0]:
            before = sent[0]
            time.sleep(0.5)
        assert sent[0] < count, "the sender is slowed down"
        (stream,) = engine_of(shared)._open
        assert len(stream.inbox) + len(stream.sink._events) <= MOST_WAITING_FRAMES + 1
        assert shared.app.budget.used_of("frames") < 4e6
        results = [result for response in call for result in response.results]
    assert [result.position for result in results] == list(range(count))
    nothing_is_left(shared)


def test_requests_are_counted_by_their_end(shared, client):
    labels = {"model": "leaky", "method": "StreamStep"}
    before = shared.metric("unroll_requests_total", code="OK", **labels)
    steps = shared.metric("unroll_tokens_total", model="leaky", direction="in")
    Reported(client.stream_step("leaky", FRAMES[:7]))
    nothing_is_left(shared)
    assert shared.metric("unroll_requests_total", code="OK", **labels) - before == 1
    assert shared.metric("unroll_tokens_total", model="leaky", direction="in") - steps == 7
    assert shared.metric("unroll_frame_seconds_count", model="leaky") >= 7


@pytest.mark.parametrize("failover", [True, False])
def test_an_asynchronous_client_streams_and_sees_refusals(shared, failover):
    async def run():
        async with AsyncClient(shared.target, timeout=30, retries=NO_RETRIES) as client:
            chunks = client.stream_step("leaky", FRAMES, failover=failover)
            found = Reported([chunk async for chunk in chunks])
            wrong = [FRAMES[0], FRAMES[0][:3], *FRAMES]
            with pytest.raises(RequestFailed):
                _ = [chunk async for chunk in client.stream_step("leaky", wrong, failover=failover)]
            return found

    assert bits(asyncio.run(run()).levels) == bits(expected_levels(FRAMES))
    nothing_is_left(shared)


def test_the_state_comes_beside_answers_where_it_is_watched(client):
    """Of a leaky integrator the answer ``level`` is the state itself."""
    frames = [FRAMES[:1], FRAMES[1:4], FRAMES[4:5]]
    assert [(t.name, t.units) for t in client.get_model("leaky").state] == [("total", FRAME)]
    plain = Reported(client.stream_step("leaky", frames))
    watched = Reported(client.stream_step("leaky", frames, watch=Watch()))
    assert plain.levels.tobytes() == watched.levels.tobytes()
    assert all(result.state == b"" for result in plain.results)
    for result in watched.results:
        assert result.state == result.outputs["level"][-1].astype("<f2").tobytes()
    some = Reported(client.stream_step("leaky", frames, watch=Watch(["total"], [2])))
    assert [r.state for r in some.results] == [r.state[4:6] for r in watched.results]
    with pytest.raises(RequestFailed, match="no state 'count'; it has total"):
        list(client.stream_step("leaky", frames, watch=Watch(["count"])))
