"""Envoy's log: calls that are given up say nothing there, those that fail do."""

from __future__ import annotations

from service.envoy.log_lines import without_resets
from service.envoy.relay import RESET

FRAMES = ["Exception in ASGI application", "Traceback (most recent call last):", '  File "a"']


def test_resets_are_left_out_and_everything_else_is_kept():
    lines = ["one", *FRAMES, f"ConnectionAbortedError: {RESET}", "two", *FRAMES, "KeyError: 1"]
    assert list(without_resets(lines)) == ["one", "two", *FRAMES, "KeyError: 1"]
    assert list(without_resets(FRAMES)) == FRAMES
