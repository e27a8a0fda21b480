"""gRPC-Web: trailers in the body, base64 in parts, and gRPC's own statuses."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from typing import Any

import pytest

from service.connect.grpc_web import _from_text
from service.engine.errors import WrongInput
from tests.service.connect.conftest import UNROLL, Caller, enveloped, envelopes
from unroll.v1 import unroll_pb2 as pb

CLASSIFY = f"{UNROLL}/Classify"
BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
ASKED = enveloped(pb.ClassifyRequest(model="mood", texts=["a b"]).SerializeToString())


def end_of(body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The messages, and the trailers."""
    *messages, (flags, last) = envelopes(body)
    assert flags == 0x80
    lines = last.decode().split("\r\n")
    assert lines.pop() == ""
    return [message for _, message in messages], dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("kind", [BINARY, "application/grpc-web"])
def test_an_answer_and_its_trailers(http_caller: Caller, kind: str) -> None:
    answer = http_caller.ask(CLASSIFY, ASKED, content_type=kind)
    assert (answer.status, answer.headers["content-type"]) == (200, BINARY)
    (message,), trailers = end_of(answer.body)
    assert len(pb.ClassifyResponse.FromString(message).classifications) == 1
    assert trailers["grpc-status"] == "0"
    assert "x-request-id" in trailers


def test_a_stream_has_a_frame_for_each_message(http_caller):
    request = pb.GenerateRequest(model="letters", prompt="ab", max_tokens=5, tokens_per_message=1)
    answer = http_caller.ask(
        f"{UNROLL}/Generate", enveloped(request.SerializeToString()), content_type=BINARY
    )
    messages, trailers = end_of(answer.body)
    read = [pb.GenerateResponse.FromString(message) for message in messages]
    assert sum(len(each.tokens) for each in read) == read[-1].usage.output_tokens > 0
    assert trailers["grpc-status"] == "0"


def test_text_is_base64_both_ways(http_caller):
    """Of a request in parts that are padded by themselves, as of a client that streams."""
    asked = b64encode(ASKED[:5]) + b64encode(ASKED[5:])
    answer = http_caller.ask(CLASSIFY, asked, content_type=TEXT)
    assert answer.headers["content-type"] == TEXT
    quads = [answer.body[at : at + 4] for at in range(0, len(answer.body), 4)]
    (message,), trailers = end_of(b"".join(map(b64decode, quads)))
    assert len(pb.ClassifyResponse.FromString(message).classifications) == 1
    assert trailers["grpc-status"] == "0"


REFUSED = {
    "no such model": (CLASSIFY, enveloped(pb.ClassifyRequest(model="x").SerializeToString()), "5"),
    "no such method": (f"{UNROLL}/Nothing", ASKED, "12"),
    "no message": (CLASSIFY, b"", "3"),
    "too large": (CLASSIFY, b"\0\xff\xff\xff\xff", "8"),
}


@pytest.mark.parametrize(("path", "body", "code"), REFUSED.values(), ids=REFUSED)
def test_a_failure_is_in_the_trailers(
    http_caller: Caller, path: str, body: bytes, code: str
) -> None:
    answer = http_caller.ask(path, body, content_type=BINARY)
    assert answer.status == 200
    messages, trailers = end_of(answer.body)
    assert (messages, trailers["grpc-status"]) == ([], code)
    assert trailers["grpc-message"]


def test_a_deadline_is_grpcs(http_caller):
    answer = http_caller.ask(CLASSIFY, ASKED, content_type=BINARY, grpc_timeout="0m")
    assert end_of(answer.body)[1]["grpc-status"] == "4"
    answer = http_caller.ask(CLASSIFY, ASKED, content_type=BINARY, grpc_timeout="soon")
    assert end_of(answer.body)[1]["grpc-status"] == "3"


def test_json_in_it_is_not_read(http_caller):
    answer = http_caller.ask(CLASSIFY, ASKED, content_type="application/grpc-web+json")
    assert end_of(answer.body)[1]["grpc-status"] == "12"


def read_all(*parts: bytes) -> bytes:
    """What the parts of a body are as bytes."""
    events = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    events[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def read() -> bytes:
        decoded = _from_text(receive)
        return b"".join([(await decoded())["body"] for _ in parts])

    return asyncio.run(read())


def test_base64_may_be_cut_anywhere():
    message = bytes(range(50))
    text = b64encode(message)
    for at in range(len(text)):
        assert read_all(text[:at], text[at:]) == message, at
    assert read_all(b64encode(b"a"), b64encode(b"bc") + b64encode(b"def")) == b"abcdef"


@pytest.mark.parametrize("text", [b"YQ", b"Y===", b"!!!!", b"=abc"])
def test_what_is_no_base64_is_refused(text: bytes) -> None:
    with pytest.raises(WrongInput, match="base64"):
        read_all(text)
