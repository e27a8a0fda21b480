"""What the fuzzer draws: the same again by the same name, mostly messages still, never the seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.fuzz.__main__ import replay_of
from tests.fuzz.drawing import Drawing, Seed
from tests.fuzz.inference_seeds import changing_seeds, inference_seeds
from tests.fuzz.methods import BY_PATH, INFERENCE, UNROLL
from tests.fuzz.tensors import stretch
from tests.fuzz.unroll_seeds import state_seeds, unroll_seeds
from unroll.inference import grpc_service_pb2 as pb
from unroll.v1 import unroll_pb2


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    return [*unroll_seeds(), *state_seeds(), *inference_seeds(), *changing_seeds()]


def test_every_method_of_both_services_has_a_seed(seeds: list[Seed]) -> None:
    """None is left out, whatever is added to the services."""
    assert {seed.method.path for seed in seeds} == BY_PATH.keys()


def test_a_draw_is_the_same_again_by_its_name(seeds: list[Seed]) -> None:
    """And another one by another name."""
    first, again, other = (list(Drawing(name, seeds).calls(200)) for name in ("a", "a", "b"))
    assert first == again
    assert [call.messages for call in first] != [call.messages for call in other]


def test_most_mutated_messages_are_messages_still(seeds: list[Seed]) -> None:
    """Neither all of them: what no stub would send is sent, too."""
    calls = list(Drawing("share", seeds).calls(2000))
    mutated = sum(call.mutated for call in calls)
    assert mutated >= 2000
    assert mutated / 2 < sum(call.readable for call in calls) < mutated


def test_every_method_is_drawn(seeds: list[Seed]) -> None:
    drawn = Counter(call.method.path for call in Drawing("methods", seeds).calls(5000))
    assert drawn.keys() == BY_PATH.keys()


def test_what_counts_as_mutated_is_not_as_it_was() -> None:
    """A call of one message that was counted differs from its seed."""
    message = unroll_pb2.ClassifyRequest(model="mood", texts=["good"])
    calls = Drawing("changes", [Seed(UNROLL["Classify"], (message,))]).calls(500)
    assert all(call.messages[0] != message.SerializeToString() for call in calls)


def test_a_call_is_sent_again_as_it_is_printed(seeds: list[Seed]) -> None:
    for call in Drawing("replays", seeds).calls(200):
        path, *sent = str(call).split(" ")
        replay = replay_of(path, sent)
        for name in ("method", "messages", "wants_status"):
            assert getattr(replay, name) == getattr(call, name)


@pytest.mark.parametrize("raw", [False, True])
def test_a_stretched_tensor_has_the_elements_that_its_shape_takes(raw: bool) -> None:
    """It gets past the checks of shapes, to those of sizes."""
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="tokens", datatype="INT64", shape=[2, 3])
    if raw:
        request.raw_input_contents.append(bytes(2 * 3 * 8))
    else:
        tensor.contents.int64_contents.extend(range(6))
    stretch(_Always(5), request)
    count = tensor.shape[0] * tensor.shape[1]
    assert count == 5 * 6
    assert count == (
        len(request.raw_input_contents[0]) // 8 if raw else len(tensor.contents.int64_contents)
    )


class _Always:
    """Draws one number, and the first way."""

    def __init__(self, number: int) -> None:
        self.number = number

    def choice(self, _: Any) -> int:
        return self.number

    def random(self) -> float:
        return 0.0


def test_both_services_are_whole() -> None:
    """The methods are those of the descriptors, streams among them."""
    streams = {m.name for m in (*UNROLL.values(), *INFERENCE.values()) if m.takes_stream}
    assert streams == {"StreamTag", "StreamStep", "ModelStreamInfer"}
    assert UNROLL["Generate"].gives_stream
    assert not UNROLL["Generate"].takes_stream
