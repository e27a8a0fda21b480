"""Connect's calls with one message each way: answers, errors, compression, GET."""

from __future__ import annotations

import gzip
import json
import socket
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2

from service.access.auth import new_token
from service.access.codes import Code
from service.connect.codecs import from_json
from service.connect.errors import error_of
from service.engine.errors import WrongInput
from service.rpc.status import Status
from tests.conftest import RunningService
from tests.service.connect.conftest import UNROLL, Answer, Caller
from unroll import Client
from unroll.v1 import unroll_pb2 as pb

CLASSIFY = f"{UNROLL}/Classify"
ASKED = '{"model":"mood","texts":["a b c","d"]}'


def error(answer: Answer) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/json"
    content: dict[str, object] = json.loads(answer.body)
    return content


@pytest.fixture
def probabilities(envoy_service: RunningService) -> list[dict[str, float]]:
    """What gRPC answers to ASKED."""
    with Client(envoy_service.target, timeout=20) as client:
        return [dict(each.labels) for each in client.classify("mood", ["a b c", "d"])]


def read(response: pb.ClassifyResponse) -> list[dict[str, float]]:
    return [
        {label.label: label.probability for label in each.labels}
        for each in response.classifications
    ]


def test_json_answers_what_grpc_answers(http_caller, probabilities):
    answer = http_caller.json("Classify", ASKED)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert "trailer-x-request-id" in answer.headers
    assert read(json_format.Parse(answer.body, pb.ClassifyResponse())) == probabilities


def test_json_brings_frames_too(http_caller, envoy_service):
    first, second = [0.5, -1.0, 2.0], [1.5, 0.0, 0.25]
    asked = {"model": "strokes", "frames": [{"shape": [2, 3], "floats": [*first, *second]}]}
    answer = http_caller.json("Classify", json.dumps(asked))
    with Client(envoy_service.target, timeout=20) as client:
        wanted = [
            dict(each.labels) for each in client.classify("strokes", frames=[[first, second]])
        ]
    assert read(json_format.Parse(answer.body, pb.ClassifyResponse())) == wanted


def test_protobuf_answers_the_same(http_caller, probabilities):
    request = pb.ClassifyRequest(model="mood", texts=["a b c", "d"]).SerializeToString()
    answer = http_caller.ask(CLASSIFY, request, content_type="application/proto")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/proto")
    assert read(pb.ClassifyResponse.FromString(answer.body)) == probabilities


NO_REQUESTS = {
    "an unknown field": ('{"modle":"mood"}', 'no field named "modle"'),
    "a field of another type": ('{"model":7}', "model"),
    "a number out of range": ('{"model":"mood","items":[],"topLabels":-1}', "items"),
    "a list": ("[]", "ClassifyRequest"),
    "nothing": ("", "ClassifyRequest"),
    "cut off": ('{"model":', "ClassifyRequest"),
    "a field twice": ('{"model":"a","model":"b"}', "model"),
    "a lone surrogate": ('{"model":"\\ud800"}', "ClassifyRequest"),
    "lists in lists": ('{"texts":' + "[" * 100_000, "nested too deep"),
    "objects in objects": ('{"texts":' * 50_000, "nested too deep"),
    "a name with a lone surrogate": ('{"model":null,"\\ud800":1}', "ClassifyRequest"),
    "a number of 100,000 digits": ('{"model":' + "9" * 100_000 + "}", "ClassifyRequest"),
}


@pytest.mark.parametrize(("text", "says"), NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_said_to_be_none(http_caller: Caller, text: str, says: str) -> None:
    answer = http_caller.json("Classify", text)
    assert answer.status == 400, answer.body
    assert error(answer)["code"] == "invalid_argument"
    assert says in str(error(answer)["message"]), error(answer)["message"][:300]


def test_a_number_beyond_all_floats_is_refused():
    """With a null beside it, whose reader lets an OverflowError through."""
    content = {"model": "letters", "prompt": None, "sampling": {"temperature": 10**400}}
    with pytest.raises(WrongInput, match="no JSON of"):
        from_json(json.dumps(content).encode(), pb.GenerateRequest)


def test_text_that_is_not_utf_8_is_refused(http_caller):
    for body in (b'{"model":"\xff"}', ASKED.encode("utf-16")):
        answer = http_caller.ask(CLASSIFY, body, content_type="application/json")
        assert (answer.status, error(answer)["code"]) == (400, "invalid_argument")


def test_a_large_request_is_read_on_a_thread_with_the_same_answer(http_caller):
    texts = ["a b c"] * 900
    answer = http_caller.json("Classify", json.dumps({"model": "mood", "texts": texts}, indent=4))
    assert answer.status == 200
    assert len(json.loads(answer.body)["classifications"]) == len(texts)


def test_a_failure_has_its_code_and_its_status_of_http(http_caller):
    answer = http_caller.json("Classify", '{"model":"nobody","texts":["a"]}')
    assert (answer.status, error(answer)["code"]) == (404, "not_found")
    assert "mood" in str(error(answer)["message"])


def test_a_body_that_is_too_large_is_refused(http_caller, envoy_service):
    most = envoy_service.app.config.max_message_bytes
    answer = http_caller.json("Classify", " " * most + ASKED)
    assert (answer.status, error(answer)["code"]) == (429, "resource_exhausted")


def test_an_error_says_when_to_try_again():
    shown = error_of(Status(Code.RESOURCE_EXHAUSTED, "all rows are taken", 1.5))
    (detail,) = shown["details"]
    assert detail["type"] == "google.rpc.RetryInfo"
    assert detail["debug"] == {"retryDelay": "1.500s"}
    value = detail["value"]
    read = error_details_pb2.RetryInfo.FromString(b64decode(value + "=" * (-len(value) % 4)))
    assert (read.retry_delay.seconds, read.retry_delay.nanos) == (1, 500_000_000)
    assert error_of(Status(Code.CANCELLED)) == {"code": "canceled"}


# -- compression ------------------------------------------------------------------------------


def test_gzip_both_ways(http_caller):
    asked = json.dumps({"model": "mood", "texts": ["a b c"] * 40}).encode()
    plain = http_caller.ask(CLASSIFY, asked, content_type="application/json")
    answer = http_caller.ask(
        CLASSIFY,
        gzip.compress(asked),
        content_type="application/json",
        content_encoding="gzip",
        accept_encoding="br, gzip",
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == plain.body
    assert "content-encoding" not in plain.headers


def test_a_small_answer_and_an_unwilling_caller_get_no_gzip(http_caller):
    small = http_caller.json("Classify", ASKED, accept_encoding="gzip")
    large = json.dumps({"model": "mood", "texts": ["a b c"] * 40})
    unwilling = http_caller.json("Classify", large, accept_encoding="gzip;q=0, br")
    for answer in (small, unwilling):
        assert answer.status == 200
        assert "content-encoding" not in answer.headers


def test_a_bomb_is_refused_before_it_is_whole(http_caller):
    bomb = gzip.compress(b" " * 50_000_000)
    answer = http_caller.ask(
        CLASSIFY, bomb, content_type="application/json", content_encoding="gzip"
    )
    assert (answer.status, error(answer)["code"]) == (429, "resource_exhausted")


def test_another_encoding_is_not_read(http_caller):
    answer = http_caller.json("Classify", ASKED, content_encoding="br")
    assert (answer.status, error(answer)["code"]) == (501, "unimplemented")
    assert "gzip" in str(error(answer)["message"])
    assert http_caller.json("Classify", ASKED, content_encoding="identity").status == 200


# -- GET --------------------------------------------------------------------------------------


def test_a_method_without_side_effects_answers_get(http_caller):
    posted = http_caller.json("Classify", ASKED)
    for target in (
        f"{CLASSIFY}?connect=v1&encoding=json&message={quote(ASKED)}",
        f"{CLASSIFY}?encoding=json&base64=1&compression=gzip&message="
        + urlsafe_b64encode(gzip.compress(ASKED.encode())).decode().rstrip("="),
    ):
        answer = http_caller.ask(target, method="GET")
        assert (answer.status, answer.body) == (200, posted.body), target


def test_texts_of_any_script_arrive_whole_by_get(http_caller):
    message = quote('{"name":"ähm 字"}')
    answer = http_caller.ask(f"{UNROLL}/GetModel?encoding=json&message={message}", method="GET")
    assert "ähm 字" in str(error(answer)["message"])


@pytest.mark.parametrize(
    "query", ["", "encoding=xml", "encoding=json&base64=1&message=a", "encoding=json&connect=v2"]
)
def test_a_get_that_cannot_be_read_is_refused(http_caller: Caller, query: str) -> None:
    answer = http_caller.ask(f"{CLASSIFY}?{query}", method="GET")
    assert (answer.status, error(answer)["code"]) == (400, "invalid_argument")


def test_what_may_change_something_is_not_called_by_get(http_caller):
    load = "/inference.GRPCInferenceService/RepositoryModelLoad"
    answer = http_caller.ask(f"{load}?encoding=json&message={{}}", method="GET")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


# -- before a call is one ---------------------------------------------------------------------


def test_another_content_type_is_told_what_is_read(http_caller):
    for kind in ("text/plain", "application/json; charset=latin-1", "application/connect+json"):
        answer = http_caller.ask(CLASSIFY, ASKED.encode(), content_type=kind)
        assert answer.status == 415, kind
        assert answer.headers["accept-post"] == "application/json, application/proto"


def test_headers_that_mean_nothing_are_refused(http_caller):
    for wrong in ({"connect_protocol_version": "2"}, {"connect_timeout_ms": "soon"}):
        answer = http_caller.json("Classify", ASKED, **wrong)
        assert (answer.status, error(answer)["code"]) == (400, "invalid_argument")


def test_a_deadline_that_has_passed_ends_the_call(http_caller):
    answer = http_caller.json("Classify", ASKED, connect_timeout_ms="0")
    assert (answer.status, error(answer)["code"]) == (504, "deadline_exceeded")


def test_whose_call_it_is_is_asked_before_its_body(
    start_service: Callable[..., RunningService], tmp_path: Path
) -> None:
    """A body that never comes keeps nobody who is not known."""
    secret, line = new_token("ann", ["infer"])
    tokens = tmp_path / "tokens"
    tokens.write_text(line + "\n")
    service = start_service(front_end="envoy", auth_tokens=tokens)
    host, _, port = service.target.partition(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        head = (
            f"POST {CLASSIFY} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            "content-length: 1000\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
    caller = Caller(service.target)
    assert caller.json("Classify", ASKED).status == 401
    assert caller.json("Classify", ASKED, authorization=f"Bearer {secret}").status == 200


def test_calls_are_counted_as_those_of_grpc(http_caller, envoy_service):
    def count(code: str) -> float:
        return envoy_service.metric(
            "unroll_requests_total", method="Classify", model="mood", code=code
        )

    before = count("OK"), count("INVALID_ARGUMENT")
    http_caller.json("Classify", ASKED)
    http_caller.json("Classify", '{"model":"mood"}')
    assert (count("OK"), count("INVALID_ARGUMENT")) == (before[0] + 1, before[1] + 1)
