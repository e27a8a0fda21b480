"""Classify over frames, and StreamStep of the same model: bits, limits, refusals by name."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests import tiny
from tests.tiny import names_without
from unroll import RequestFailed
from unroll.v1 import unroll_pb2 as pb

WIDTH = len(tiny.CHANNELS)


def sequence(number, length=None):
    random = np.random.default_rng(number)
    length = length or 1 + 7 * number % 40
    return random.normal(0, 3, (length, WIDTH)).astype(np.float32)


def request(*frames, **fields):
    return pb.ClassifyRequest(
        model="strokes", frames=[pb.Tensor(raw=one.tobytes()) for one in frames], **fields
    )


def test_a_model_says_what_frames_it_reads(caller):
    model = caller.get_model("strokes")
    assert model.task == pb.TASK_CLASSIFY
    assert (list(model.frames.channels), model.frames.frame_seconds) == (list(tiny.CHANNELS), 0.01)
    assert model.limits["input_frames"] == 40
    assert [port.name for port in model.stepper.inputs] == ["frame"]
    assert model.stepper.batching == pb.BATCHING_EXACT
    assert [tensor.name for tensor in model.state] == ["peak", "hidden_0"]
    assert model.batch_invariant
    assert not caller.get_model("mood").HasField("frames")


def test_each_sequence_has_every_label(caller):
    first, second = caller.classify("strokes", frames=[sequence(1), sequence(2)])
    assert {label for label, _ in first.labels} == set(tiny.SHAPES)
    assert sum(probability for _, probability in first.labels) == pytest.approx(1, abs=1e-5)
    assert (first.input_tokens, second.input_tokens) == (8, 15)


def test_a_sequence_has_the_same_bits_alone_and_among_others(caller):
    """Whatever is asked at the same time, in the same request or in others."""
    asked = [sequence(number) for number in range(24)]
    alone = [caller.classify("strokes", frames=[one])[0].labels for one in asked]
    assert [row.labels for row in caller.classify("strokes", frames=asked)] == alone
    with ThreadPoolExecutor(8) as pool:
        among = pool.map(lambda one: caller.classify("strokes", frames=[one])[0].labels, asked)
        assert list(among) == alone


def test_every_way_to_write_numbers_is_the_same(caller):
    frames = sequence(3, 5)
    wanted = caller.classify("strokes", frames=[frames])
    assert caller.classify("strokes", frames=[frames.astype(np.float64)]) == wanted
    assert caller.classify("strokes", frames=[frames.astype(">f4")]) == wanted
    assert caller.classify("strokes", frames=[frames.tolist()]) == wanted
    assert caller.classify("strokes", frames=[np.asfortranarray(frames)]) == wanted


def test_lists_of_several_sizes_are_refused_before_they_are_sent(caller):
    with pytest.raises(ValueError, match="have 2 and 3 numbers"):
        caller.classify("strokes", frames=[[[1, 2, 3], [1, 2]]])


def test_a_stream_says_after_each_frame_what_classify_says_of_all_so_far(caller):
    """The bits, frame by frame and several at once."""
    frames = sequence(6, 9)
    results = [
        result for chunk in caller.stream_step("strokes", frames) for result in chunk.results
    ]
    beginnings = [frames[:count] for count in range(1, 10)]
    labels = caller.get_model("strokes").labels
    for result, whole in zip(results, caller.classify("strokes", frames=beginnings), strict=True):
        known = dict(whole.labels)
        wanted = np.array([known[label] for label in labels], np.float32)
        assert result.outputs["probabilities"][0].tobytes() == wanted.tobytes()
    (at_once,) = (
        result for chunk in caller.stream_step("strokes", [frames]) for result in chunk.results
    )
    together = np.concatenate([result.outputs["probabilities"] for result in results])
    assert at_once.outputs["probabilities"].tobytes() == together.tobytes()


def test_a_stream_goes_on_by_its_resume_token(caller):
    frames = sequence(7, 12)
    whole = list(caller.stream_step("strokes", frames))
    begun = list(caller.stream_step("strokes", frames[:5], resume_at_end=True))
    (point,) = [point for chunk in begun for point in chunk.resume_points]
    rest = list(caller.stream_step("strokes", frames[5:], resume_token=point.token))

    def said(chunks):
        found = [result for chunk in chunks for result in chunk.results]
        return np.concatenate([result.outputs["probabilities"] for result in found])

    assert np.concatenate([said(begun), said(rest)]).tobytes() == said(whole).tobytes()


REFUSED = {
    "nothing": (request(), "reads frames of numbers, not texts"),
    "texts": (
        pb.ClassifyRequest(model="strokes", texts=["a"]), "reads frames of numbers, not texts",
    ),
    "texts and frames": (request(sequence(1), texts=["a"]), "texts and frames; send one of the"),
    "frames of a model that reads texts": (
        pb.ClassifyRequest(model="mood", frames=[pb.Tensor(floats=[1.0])]),
        "model 'mood' reads texts, not frames; send texts",
    ),
    "no frame": (
        pb.ClassifyRequest(model="strokes", frames=[pb.Tensor()]), "'frames[0]' has 0 bytes",
    ),
    "half a frame": (
        pb.ClassifyRequest(model="strokes", frames=[pb.Tensor(floats=[1, 2, 3, 4])]),
        "input 'frames[0]' has 16 bytes; a step is 12: float32 of shape [3]",
    ),
    "too many channels": (
        pb.ClassifyRequest(model="strokes", frames=[pb.Tensor(shape=[1, 4], floats=[1, 2, 3, 4])]),
        "input 'frames[0]' has",
    ),
    "a shape that does not fit": (
        pb.ClassifyRequest(
            model="strokes", frames=[pb.Tensor(shape=[2, 3], floats=[1, 2, 3, 4, 5, 6, 7, 8, 9])]
        ),
        "has the shape [2, 3] and 36 bytes, which are 3 steps",
    ),
    "another type": (
        pb.ClassifyRequest(
            model="strokes",
            frames=[pb.Tensor(data_type=pb.DATA_TYPE_FLOAT64, doubles=[1.0, 2.0, 3.0])],
        ),
        "'frames[0]' is float64, the model takes float32",
    ),
    "whole numbers": (
        pb.ClassifyRequest(model="strokes", frames=[pb.Tensor(integers=[1, 2, 3])]),
        "is float32 and has integers; fill floats",
    ),
    "not a number": (
        request(sequence(1), np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)),
        "frames[1] is nan in frame 1, channel 1 ('y (mm)'); send a number from -1e+09 to 1e+09",
    ),
    "infinity": (
        request(np.array([[1, 2, -np.inf]], np.float32)), "frames[0] is -inf in frame 0, channel 2",
    ),
    "too large a number": (request(np.array([[2e9, 2, 3]], np.float32)), "frames[0] is 2e+09 in"),
    "too many frames": (
        request(sequence(1), sequence(2, 41)), "frames[1] has 41 frames, model 'strokes' accepts 1",
    ),
    "too many sequences": (
        request(*[sequence(1, 1)] * 1025), "send at most 1024 a request",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_classified_is_refused_with_its_place(refusal, case):
    asked, says = REFUSED[case]
    assert says in refusal("Classify", asked)


@pytest.mark.parametrize("name", names_without("strokes"))
def test_stream_step_is_for_models_that_step(caller, name):
    with pytest.raises(RequestFailed, match="does not step over numbers; call") as caught:
        list(caller.stream_step(name, [np.zeros(WIDTH, np.float32)]))
    assert caught.value.code == "INVALID_ARGUMENT"


def test_a_call_that_does_not_fit_names_those_that_do(caller):
    with pytest.raises(RequestFailed, match=re.escape("call Classify or StreamStep")):
        caller.tag("strokes", ["a"])
