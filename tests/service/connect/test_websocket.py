"""Calls over WebSocket: both ways at once, ends and refusals, frames of every kind."""

from __future__ import annotations

import json
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived

from service.access.auth import new_token
from service.access.inflight import InflightTracker
from tests.conftest import RunningService
from tests.service.connect.conftest import PAGE, UNROLL
from tests.service.connect.sockets import BINARY, PING, PONG, TEXT, Refused, Socket, frame
from unroll import Client, Sampling
from unroll.v1 import unroll_pb2 as pb

STREAM_TAG, GENERATE = f"{UNROLL}/StreamTag", f"{UNROLL}/Generate"
START = {"start": {"model": "tags-online"}}
ASKED: dict[str, Any] = {
    "model": "letters",
    "prompt": "ab",
    "maxTokens": 12,
    "sampling": {"seed": "7"},
}


@pytest.fixture
def open_socket(envoy_service: RunningService) -> Callable[..., Socket]:
    return lambda path, *protocols, **headers: Socket(
        envoy_service.target, path, *protocols, **headers
    )


def wait_until_empty(inflight: InflightTracker) -> None:
    deadline = time.monotonic() + 20
    while inflight.calls and time.monotonic() < deadline:
        time.sleep(0.02)
    assert inflight.calls == 0


def test_each_word_is_labelled_before_the_next_is_sent(open_socket):
    opened = open_socket(STREAM_TAG, "unroll.json")
    assert opened.headers["sec-websocket-protocol"] == "unroll.json"
    opened.send(START)
    for position, word in enumerate(("a", "b", "c")):
        opened.send({"words": {"words": [word]}})
        opcode, payload = opened.receive()
        assert opcode == TEXT
        assert f'"text":"{word}"'.encode() in payload, position
    opened.send("")
    messages, code, reason = opened.rest()
    assert (code, reason) == (1000, "")
    assert messages[-1]["usage"]["outputTokens"] == 3


def test_protobuf_is_in_binary_messages(open_socket):
    opened = open_socket(STREAM_TAG, "other", "unroll.proto")
    start = pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online"))
    opened.send(start.SerializeToString())
    opened.send(pb.StreamTagRequest(text="a b").SerializeToString())
    opened.send("")
    messages, code, _ = opened.rest()
    read = [pb.StreamTagResponse.FromString(message) for message in messages]
    assert [token.text for each in read for token in each.tokens] == ["a", "b"]
    assert code == 1000


def test_one_request_is_answered_by_a_stream_with_grpcs_tokens(open_socket, envoy_service):
    """Without a subprotocol, as a page's first try is."""
    opened = open_socket(GENERATE)
    assert "sec-websocket-protocol" not in opened.headers
    opened.send(ASKED)
    messages, code, _ = opened.rest()
    with Client(envoy_service.target, timeout=20) as client:
        chunks = client.generate("letters", prompt="ab", max_tokens=12, sampling=Sampling(seed=7))
        expected = [token.id for chunk in chunks for token in chunk.tokens]
    found = [token.get("id", 0) for each in messages for token in each.get("tokens", [])]
    assert (found, code) == (expected, 1000)


def test_a_failure_is_the_last_message_and_the_close_code(open_socket):
    opened = open_socket(GENERATE, "unroll.json")
    opened.send({"model": "nobody"})
    messages, code, reason = opened.rest()
    assert code == 4005
    assert messages == [{"error": {"code": "not_found", "message": reason}}]


def test_a_long_reason_is_cut_between_characters(open_socket):
    opened = open_socket(GENERATE)
    opened.send({"model": "字" * 200})
    ((error,), code, reason) = opened.rest()
    assert code == 4005
    assert error["error"]["message"].startswith(reason)
    assert 120 < len(reason.encode()) <= 123


WRONG = {
    "no json": (frame(TEXT, b"a"), 4003),
    "protobuf": (frame(BINARY, b"\x0a\x01a"), 4003),
    "no request": (frame(TEXT, b""), 4003),
    "not utf-8": (frame(TEXT, b"\xff"), 4003),
    "not masked": (b"\x81\x02{}", 4003),
    "a kind that is none": (frame(3, b"{}"), 4003),
    "bits of an extension": (bytes((0xC1,)) + frame(TEXT, b"{}")[1:], 4003),
    "goes on with nothing": (frame(0, b"{}"), 4003),
    "begins within another": (frame(TEXT, b"{", False) + frame(TEXT, b"}"), 4003),
    "a ping in parts": (frame(PING, b"", False), 4003),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 4003),
    "too large": (b"\x81\xff" + (1 << 40).to_bytes(8) + b"mask", 4008),
    "too large in parts": (
        frame(TEXT, b" " * 600_000, False) + frame(0, b" " * 600_000),
        4008,
    ),
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG)
def test_what_is_no_request_ends_the_call(
    open_socket: Callable[..., Socket], sent: bytes, code: int
) -> None:
    opened = open_socket(GENERATE)
    opened.send_raw(sent)
    ((error,), closed, _) = opened.rest(waits=False)
    assert closed == code, error


def test_a_message_may_come_in_parts_with_pings_between(open_socket):
    opened = open_socket(STREAM_TAG)
    opened.send(START)
    text = b'{"words":{"words":["a"]}}'
    for part in (
        frame(TEXT, text[:5], False),
        frame(PING, b"still there?"),
        frame(0, text[5:9], False),
        frame(0, text[9:]),
    ):
        for byte in part:
            opened.send_raw(bytes((byte,)))
    assert opened.receive() == (PONG, b"still there?")
    assert b'"text":"a"' in opened.receive()[1]
    opened.send("")
    assert opened.rest()[1] == 1000


def test_a_large_message_is_read_whole(open_socket, envoy_service):
    opened = open_socket(f"{UNROLL}/Classify")
    opened.send({"model": "mood", "texts": ["a b c d"] * 900})
    messages, code, _ = opened.rest()
    assert (len(messages[0]["classifications"]), code) == (900, 1000)


def test_a_close_ends_the_call_and_is_answered(open_socket, envoy_service):
    inflight = envoy_service.app.inflight
    wait_until_empty(inflight)
    opened = open_socket(STREAM_TAG)
    opened.send(START)
    opened.send({"text": "a"})
    opened.receive()
    assert inflight.calls == 1
    opened.close(4321)
    messages, code, _ = opened.rest()
    assert (messages, code) == ([], 4321)
    wait_until_empty(inflight)


def test_a_connection_that_ends_ends_the_call(open_socket, envoy_service):
    inflight = envoy_service.app.inflight
    wait_until_empty(inflight)
    opened = open_socket(STREAM_TAG)
    opened.send(START)
    opened.send({"text": "a"})
    opened.receive()
    assert inflight.calls == 1
    opened.end()
    wait_until_empty(inflight)


def test_a_deadline_closes_the_socket(open_socket):
    opened = open_socket(STREAM_TAG, connect_timeout_ms="200")
    opened.send(START)
    ((error,), code, _) = opened.rest()
    assert (error["error"]["code"], code) == ("deadline_exceeded", 4004)


# -- handshakes -------------------------------------------------------------------------------

REFUSED = {
    "another version": ({"sec_websocket_version": "8"}, (), 400),
    "a short key": ({"sec_websocket_key": "YQ=="}, (), 400),
    "a key that is none": ({"sec_websocket_key": "!"}, (), 400),
    "no subprotocol of ours": ({}, ("graphql-ws",), 400),
    "a token that is none": ({}, ("unroll.json", "unroll.bearer.a"), 400),
    "a timeout that is none": ({"connect_timeout_ms": "soon"}, (), 400),
    "another site's page": ({"origin": "https://other.example"}, (), 403),
}


@pytest.mark.parametrize(("headers", "protocols", "status"), REFUSED.values(), ids=REFUSED)
def test_a_handshake_is_refused(
    open_socket: Callable[..., Socket],
    headers: dict[str, str],
    protocols: tuple[str, ...],
    status: int,
) -> None:
    with pytest.raises(Refused) as caught:
        open_socket(GENERATE, *protocols, **headers)
    assert caught.value.status == status


def test_there_is_no_socket_where_there_is_no_method(open_socket):
    with pytest.raises(Refused) as caught:
        open_socket("/nobody")
    assert caught.value.status == 404


def test_pages_of_this_server_and_those_allowed_may_open_one(open_socket, envoy_service):
    for origin in (f"http://{envoy_service.target}", PAGE):
        opened = open_socket(GENERATE, origin=origin)
        opened.send(ASKED)
        assert opened.rest()[1] == 1000


def test_a_token_comes_as_a_header_or_as_a_subprotocol(
    start_service: Callable[..., RunningService], tmp_path: Path
) -> None:
    """Pages can set no header. Without one the call is refused before anything is read."""
    secret, line = new_token("ann", ["infer"])
    tokens = tmp_path / "tokens"
    tokens.write_text(line + "\n")
    service = start_service(front_end="envoy", auth_tokens=tokens)
    opened = Socket(service.target, GENERATE)
    ((error,), code, _) = opened.rest()
    assert (error["error"]["code"], code) == ("unauthenticated", 4016)
    encoded = urlsafe_b64encode(secret.encode()).decode().rstrip("=")
    for opened in (
        Socket(service.target, GENERATE, authorization=f"Bearer {secret}"),
        Socket(service.target, GENERATE, f"unroll.bearer.{encoded}", "unroll.json"),
    ):
        opened.send(ASKED)
        assert opened.rest()[1] == 1000


def test_a_socket_opens_over_http_2_too(envoy_service):
    """By extended CONNECT, as browsers do where a connection is there (RFC 8441)."""
    host, _, port = envoy_service.target.partition(":")
    client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(client.data_to_send())
        found: list[Any] = []

        def read_until(is_there: Callable[[], bool]) -> None:
            while not is_there():
                found.extend(client.receive_data(connection.recv(65_536)))
                connection.sendall(client.data_to_send())

        def of(kind: type) -> list[Any]:
            return [event for event in found if isinstance(event, kind)]

        read_until(lambda: bool(of(RemoteSettingsChanged)))
        assert client.remote_settings.enable_connect_protocol == 1
        head = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "http",
            ":path": GENERATE,
            ":authority": envoy_service.target,
            "sec-websocket-version": "13",
            "sec-websocket-protocol": "unroll.json",
        }
        client.send_headers(1, list(head.items()))
        client.send_data(1, frame(TEXT, json.dumps(ASKED).encode()))
        connection.sendall(client.data_to_send())
        close = b"\x88\x02" + (1000).to_bytes(2)
        read_until(lambda: b"".join(event.data for event in of(DataReceived)).endswith(close))
    (answer,) = of(ResponseReceived)
    headers = dict(answer.headers)
    assert headers[":status"] == "200"
    assert headers["sec-websocket-protocol"] == "unroll.json"


def test_a_socket_that_ends_logs_nothing(envoy_service, caplog):
    socket = Socket(envoy_service.target, f"{UNROLL}/Generate")
    socket.send({"model": "letters", "prompt": "ab", "maxTokens": 2})
    assert socket.rest()[1] == 1000
    time.sleep(0.1)
    assert [record for record in caplog.records if record.name == "envoy"] == []
