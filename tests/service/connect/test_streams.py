"""Connect's calls whose messages come in envelopes: streams, their ends, callers that leave."""

from __future__ import annotations

import gzip
import http.client
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from tests.conftest import RunningService
from tests.service.connect.conftest import UNROLL, Caller, enveloped, envelopes
from unroll import Client, Sampling
from unroll.v1 import unroll_pb2 as pb

GENERATE, STREAM_TAG = f"{UNROLL}/Generate", f"{UNROLL}/StreamTag"
JSON, PROTO = "application/connect+json", "application/connect+proto"
ASKED = {"model": "letters", "prompt": "ab", "maxTokens": 12, "sampling": {"seed": "7"}}


def end_of(body: bytes) -> tuple[list[bytes], dict[str, Any]]:
    """The messages, and what stands in the end."""
    *messages, (flags, last) = envelopes(body)
    assert flags == 2
    assert [flags for flags, _ in messages] == [0] * len(messages)
    return [message for _, message in messages], json.loads(last)


@pytest.fixture
def tokens(envoy_service: RunningService) -> list[int]:
    """Of ASKED, by gRPC."""
    with Client(envoy_service.target, timeout=20) as client:
        sampling = Sampling(seed=7)
        chunks = client.generate("letters", prompt="ab", max_tokens=12, sampling=sampling)
        return [token.id for chunk in chunks for token in chunk.tokens]


def ids(responses: list[pb.GenerateResponse]) -> list[int]:
    return [token.id for response in responses for token in response.tokens]


def test_a_stream_of_json_has_grpcs_tokens(http_caller, tokens):
    asked = enveloped(json.dumps(ASKED).encode())
    answer = http_caller.ask(GENERATE, asked, content_type=JSON)
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    messages, end = end_of(answer.body)
    assert ids([json_format.Parse(each, pb.GenerateResponse()) for each in messages]) == tokens
    assert "error" not in end
    assert len(end["metadata"]["x-request-id"]) == 1


def test_a_stream_of_protobuf_has_them_too(http_caller, tokens):
    asked = enveloped(json_format.ParseDict(ASKED, pb.GenerateRequest()).SerializeToString())
    messages, _ = end_of(http_caller.ask(GENERATE, asked, content_type=PROTO).body)
    assert ids([pb.GenerateResponse.FromString(each) for each in messages]) == tokens


def test_requests_of_a_stream_are_read_one_by_one(http_caller):
    parts = [{"start": {"model": "tags-online"}}, {"text": "a b"}, {"words": {"words": ["c"]}}]
    asked = enveloped(*(json.dumps(part).encode() for part in parts))
    messages, end = end_of(http_caller.ask(STREAM_TAG, asked, content_type=JSON).body)
    read = [json.loads(each) for each in messages]
    assert [token["text"] for each in read for token in each.get("tokens", [])] == ["a", "b", "c"]
    assert "error" not in end


def test_many_requests_of_one_call_are_answered_side_by_side(http_caller):
    """ModelStreamInfer, whose method reads bytes itself."""
    text = {"name": "prompt", "datatype": "BYTES", "shape": [1]}
    requests = [
        {
            "modelName": "letters",
            "id": name,
            "inputs": [{**text, "contents": {"bytesContents": ["YWI="]}}],
            "parameters": {"max_tokens": {"int64Param": "3"}},
        }
        for name in ("one", "two")
    ]
    asked = enveloped(*(json.dumps(each).encode() for each in requests))
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    messages, end = end_of(http_caller.ask(path, asked, content_type=JSON).body)
    found = [json.loads(each)["inferResponse"]["id"] for each in messages]
    assert set(found) == {"one", "two"}
    assert "error" not in end


FAILURES = {
    "no such model": (enveloped(b'{"model":"nobody"}'), "not_found"),
    "no request": (b"", "invalid_argument"),
    "no json": (enveloped(b"model"), "invalid_argument"),
    "a flag that is none": (b"\x04\0\0\0\0", "invalid_argument"),
    "cut off": (enveloped(b"{}")[:-1], "invalid_argument"),
    "compressed as nothing": (b"\x01\0\0\0\x01x", "invalid_argument"),
    "too large": (b"\0\xff\xff\xff\xff", "resource_exhausted"),
}


@pytest.mark.parametrize(("body", "code"), FAILURES.values(), ids=FAILURES)
def test_a_stream_that_fails_says_so_at_its_end(
    http_caller: Caller, body: bytes, code: str
) -> None:
    answer = http_caller.ask(GENERATE, body, content_type=JSON)
    assert answer.status == 200
    messages, end = end_of(answer.body)
    assert messages == []
    assert end["error"]["code"] == code


def test_what_was_answered_before_a_failure_is_kept(http_caller):
    parts = [{"start": {"model": "tags-online"}}, {"text": "a"}, {"words": {"words": [""]}}]
    asked = enveloped(*(json.dumps(part).encode() for part in parts))
    messages, end = end_of(http_caller.ask(STREAM_TAG, asked, content_type=JSON).body)
    assert json.loads(messages[0])["tokens"][0]["text"] == "a"
    assert end["error"]["code"] == "invalid_argument"


def test_an_unknown_method_is_unimplemented(http_caller):
    answer = http_caller.ask(f"{UNROLL}/Nothing", enveloped(b"{}"), content_type=JSON)
    assert (answer.status, json.loads(answer.body)["code"]) == (404, "unimplemented")


def test_messages_are_compressed_where_that_is_worth_it(http_caller):
    """A request that is, an answer that is large enough, and one that is not."""
    prompt = {**ASKED, "echo": True, "prompt": "ab" * 16, "tokensPerMessage": 1}
    message = gzip.compress(json.dumps(prompt).encode())
    answer = http_caller.ask(
        GENERATE,
        b"\x01" + len(message).to_bytes(4) + message,
        content_type=JSON,
        connect_content_encoding="gzip",
        connect_accept_encoding="gzip",
    )
    assert answer.headers["connect-content-encoding"] == "gzip"
    (first, echoed), *rest = envelopes(answer.body)
    assert first == 1
    assert len(json.loads(gzip.decompress(echoed))["echo"]) == 32
    assert {flags for flags, _ in rest} <= {0, 2}


def test_a_deadline_ends_a_stream_with_its_code(http_caller):
    asked = enveloped(json.dumps({"start": {"model": "tags-online"}}).encode())
    # The body has no end, so that the call has none but its deadline.
    connection = http.client.HTTPConnection(http_caller.target, timeout=20)
    connection.putrequest("POST", STREAM_TAG)
    for name, value in (
        ("content-type", JSON),
        ("connect-timeout-ms", "200"),
        ("transfer-encoding", "chunked"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"%x\r\n%s\r\n" % (len(asked), asked))
    _, end = end_of(connection.getresponse().read())
    connection.close()
    assert end["error"]["code"] == "deadline_exceeded"


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_a_caller_that_leaves_ends_its_stream(http_caller, envoy_service):
    """Its headers are there before its first message, and then nobody reads on."""
    inflight = envoy_service.app.inflight
    assert wait_until(lambda: inflight.calls == 0)
    connection = http.client.HTTPConnection(http_caller.target, timeout=20)
    asked = enveloped(json.dumps({"start": {"model": "tags-online"}}).encode())
    connection.putrequest("POST", STREAM_TAG)
    connection.putheader("content-type", JSON)
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    connection.send(b"%x\r\n%s\r\n" % (len(asked), asked))
    response = connection.getresponse()
    assert response.status == 200
    assert inflight.calls == 1
    response.close()
    connection.close()
    assert wait_until(lambda: inflight.calls == 0)
