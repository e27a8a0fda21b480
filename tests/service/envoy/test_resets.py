"""Envoy's log: calls that are given up say nothing there, those that fail do."""

from __future__ import annotations

import time

from service.envoy.log_lines import without_resets
from service.envoy.relay import RESET
from tests.service.connect.conftest import UNROLL
from tests.service.connect.sockets import Socket

FRAMES = ["Exception in ASGI application", "Traceback (most recent call last):", '  File "a"']


def test_resets_are_left_out_and_everything_else_is_kept():
    lines = ["one", *FRAMES, f"ConnectionAbortedError: {RESET}", "two", *FRAMES, "KeyError: 1"]
    assert list(without_resets(lines)) == ["one", "two", *FRAMES, "KeyError: 1"]
    assert list(without_resets(FRAMES)) == FRAMES


def test_a_socket_that_ends_logs_nothing(envoy_service, caplog):
    socket = Socket(envoy_service.target, f"{UNROLL}/Generate")
    socket.send({"model": "letters", "prompt": "ab", "maxTokens": 2})
    assert socket.rest()[1] == 1000
    time.sleep(0.1)
    assert [record for record in caplog.records if record.name == "envoy"] == []
