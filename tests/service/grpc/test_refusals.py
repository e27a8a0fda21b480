"""What no stub sends is refused as input: bytes that are no message, names without an end."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import grpc
import pytest

from tests.conftest import RunningService
from unroll.v1 import unroll_pb2 as pb

SERVICE = "/unroll.v1.UnrollService"
NO_MESSAGE = b"\xff\xff\xff"


@pytest.fixture
def channel(standing_service: RunningService) -> Any:
    with grpc.insecure_channel(standing_service.target) as channel:
        yield channel


def test_bytes_that_are_no_message_are_invalid_arguments(channel: grpc.Channel) -> None:
    """Whatever the method takes and gives; the server has not failed, and logs nothing."""
    ways = {
        "Classify": lambda path: [channel.unary_unary(path)(NO_MESSAGE, timeout=20)],
        "Generate": lambda path: channel.unary_stream(path)(NO_MESSAGE, timeout=20),
        "StreamTag": lambda path: channel.stream_stream(path)(iter([NO_MESSAGE]), timeout=20),
    }
    for name, call in ways.items():
        with pytest.raises(grpc.RpcError) as caught:
            list(call(f"{SERVICE}/{name}"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
        assert "send a message of the method's type" in caught.value.details()


def test_what_was_sent_before_such_bytes_is_still_answered(channel: grpc.Channel) -> None:
    sent = [
        pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online")).SerializeToString(),
        pb.StreamTagRequest(text="the food was").SerializeToString(),
        NO_MESSAGE,
    ]
    answers: list[bytes] = []
    call = channel.stream_stream(f"{SERVICE}/StreamTag")(iter(sent), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        answers.extend(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    tokens = [t.text for data in answers for t in pb.StreamTagResponse.FromString(data).tokens]
    assert tokens == ["the", "food", "was"]


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f600"])
def test_a_refusal_fits_its_header_whatever_it_quotes(channel: grpc.Channel, letter: str) -> None:
    """A client that gets too much of it would see an error of the header instead."""
    request = pb.GetModelRequest(name=letter * 100_000).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"{SERVICE}/GetModel")(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().startswith(f"no model '{letter}")


REFUSED: dict[str, tuple[str, bytes]] = {
    "bytes that are no message": ("Classify", NO_MESSAGE),
    "a wrong request": ("Classify", pb.ClassifyRequest(model="mood").SerializeToString()),
    "a model that is not there": ("Tag", pb.TagRequest(model="nobody").SerializeToString()),
    "a stream of an unknown model": (
        "Generate",
        pb.GenerateRequest(model="nobody").SerializeToString(),
    ),
    "a stream without a start": ("StreamTag", pb.StreamTagRequest(text="x").SerializeToString()),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_call_is_gone_without_any_collection(channel: grpc.Channel, kind: str) -> None:
    """Errors hold frames and frames hold requests: in a cycle, a few kilobytes fill the memory."""
    method, message = REFUSED[kind]
    call = channel.stream_stream(f"{SERVICE}/{method}")
    gc.collect()
    gc.disable()
    try:
        before = _alive()
        for _ in range(20):
            with pytest.raises(grpc.RpcError):
                list(call(iter([message]), timeout=20))
        kept = _alive() - before
    finally:
        gc.enable()
    # The last one may be on its way out.
    assert max(kept.values(), default=0) <= 2, kept


def _alive() -> Counter[str]:
    """What stands for a call while it lasts."""
    names = ("Admission", "_ServicerContext")
    return Counter(k for k in (type(thing).__name__ for thing in gc.get_objects()) if k in names)
