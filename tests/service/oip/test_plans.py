"""What requests have in common, and what of them is no part of it."""

import numpy as np

from service.oip.plans import Plan, Plans, signature_of
from tests.service.oip.calls import ask


def text(value, **more):
    return ask("sentiment", {"text": [value]}, raw=True, **more)


def test_contents_and_ids_are_no_part_of_a_signature():
    assert signature_of(text("a good film")) == signature_of(text("bad", id="7")) is not None


def test_everything_else_is():
    other = ask("sentiment", {"text": [["a"], ["b"]]}, raw=True)
    renamed = ask("sentiment", {"texts": ["a"]}, raw=True)
    different = (text("a", model_version="2"), text("a", outputs=["label"]), other, renamed,
                 ask("mood", {"text": ["a"]}, raw=True),
                 ask("sentiment", {"text": [1]}, raw=True))  # fmt: skip
    signatures = [signature_of(request) for request in (text("a"), *different)]
    assert None not in signatures
    assert len(set(signatures)) == len(signatures)


def test_names_and_shapes_cannot_be_taken_for_each_other():
    two = ask("m", {"a": ["x"], "b": ["y"]}, raw=True)
    asked = ask("m", {"a": ["x"]}, raw=True, outputs=["b"])
    assert signature_of(two) != signature_of(asked)


def test_a_request_that_says_more_has_none():
    own = text("a")
    own.inputs[0].parameters["binary_data_size"].int64_param = 5
    labelled = text("a", outputs=["label"])
    labelled.outputs[0].parameters["classification"].int64_param = 1
    both = text("a")
    both.inputs[0].contents.bytes_contents.append(b"a")
    missing = text("a")
    del missing.raw_input_contents[:]
    for request in (text("a", parameters={"timeout": 5}), own, labelled, both, missing,
                    ask("sentiment", {"text": ["a"]})):  # fmt: skip
        assert signature_of(request) is None


def test_responses_of_a_plan_differ_in_ids_and_contents_alone():
    plan = Plan((), {})
    arrays = [{"p": np.array([[value]], np.float32)} for value in (0.25, 0.5)]
    first = plan.response(text("a", id="1"), "3", arrays[0])
    second = plan.response(text("b"), "3", arrays[1])
    assert (first.id, second.id) == ("1", "")
    assert second.raw_output_contents[:] == [np.float32(0.5).tobytes()]
    typed = plan.response(ask("sentiment", {"text": ["a"]}), "3", arrays[1])
    assert typed.outputs[0].contents.fp32_contents[:] == [0.5]
    assert not typed.raw_output_contents
    wider = plan.response(text("a"), "3", {"p": np.zeros((2, 1), np.float32)})
    assert [list(r.outputs[0].shape) for r in (first, second, wider)] == [[1, 1], [1, 1], [2, 1]]


def test_the_oldest_plan_leaves_where_there_are_too_many():
    plans = Plans()
    for number in range(65):
        plans.keep(number, Plan((), {}))
    assert plans.get(0) is None
    assert all(plans.get(number) for number in range(1, 65))
