"""The tour over HTTP: a server of gRPC alone is left out, one whose calls break fails the tour."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from examples.demonstrations import TourFailed
from examples.over_http import show_classify, show_completion

RIGHT = json.dumps({"classifications": [{"labels": [{"label": "positive"}]}]})
WRONG = json.dumps({"classifications": [{"labels": [{"label": "negative"}]}]})
COMPLETION = {"model": "prose", "prompt": "ROMEO:\n", "max_tokens": 2}


def http(status: str, body: str, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}".encode()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Makes the address of a server that answers its one call with these bytes and closes."""
    listening: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while not request.endswith(b"}"):  # the JSON that is sent
                    request += connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for listener in listening:
        listener.close()


def classify(target: str) -> bool:
    return show_classify(target, "sentiment", "good", "positive")


def test_a_right_answer_is_shown_with_its_command(answering, capsys):
    target = answering(http("200 OK", RIGHT))
    assert classify(target)
    printed = capsys.readouterr().out
    assert f"http://{target}/unroll.v1.UnrollService/Classify\n  {RIGHT}\n" in printed


def test_a_completion_is_the_text_of_grpc(answering, capsys):
    answer = http("200 OK", json.dumps({"choices": [{"text": "But"}]}))
    assert show_completion(answering(answer), COMPLETION, "But")
    assert "/v1/completions\n" in capsys.readouterr().out
    with pytest.raises(TourFailed, match="writes 'But', and over gRPC 'Soft'"):
        show_completion(answering(answer), COMPLETION, "Soft")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http("200 OK", WRONG), "calls 'good' negative, not positive"),
        (http("500 Internal Server Error", "broken"), "answers 500: broken"),
        (http("404 Not Found", ""), "answers 404"),
        (http("200 OK", RIGHT, length=999), "breaks off"),
        (http("200 OK", "{}"), "without 'classifications'"),
        (http("200 OK", "no JSON"), "without 'classifications'"),
    ],
)
def test_a_call_that_breaks_fails_the_tour(answering, answer, message):
    with pytest.raises(TourFailed, match=message):
        classify(answering(answer))


@pytest.mark.parametrize("answer", [b"", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00"])
def test_a_server_of_grpc_alone_is_left_out(answering, capsys, answer):
    """It closes, or answers with a frame of HTTP/2."""
    assert not classify(answering(answer))
    assert capsys.readouterr().out == ""


def test_nobody_and_several_addresses_are_left_out():
    assert not classify("127.0.0.1:1")
    assert not classify("127.0.0.1:1,127.0.0.1:2")
