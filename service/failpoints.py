"""Named points at which a test build injects faults; in any other process they do nothing.

A process is a test build where UNROLL_FAILPOINTS is 1 when this module is imported. The service's
own command refuses that variable, since it is no setting, and the image has no other command.
"""

from __future__ import annotations

import os
from collections.abc import Callable

IS_TEST_BUILD = os.environ.get("UNROLL_FAILPOINTS") == "1"

POINTS = (
    "engine.prefill",  # before a chunk of prompts is read
    "engine.decode",  # before a step of all rows
    "engine.predict",  # before a part of a batch
    "engine.deliver",  # a step is done, and its readers are not awake yet
    "engine.hand_over",  # before streams are ended to go on elsewhere
    "resume.sign",  # before a resume token is made
    "resume.open",  # before one is read
    "bundle.read",  # before a bundle is read and verified
    "session.open",  # before a graph is opened
    "model.take_over",  # a model is ready, and what it replaces is still served
    "rpc.write",  # before a message of a stream is written
)

_actions: dict[str, Callable[[], None]] = {}


def _hit(name: str) -> None:
    if action := _actions.get(name):
        action()


def _nothing(name: str) -> None:
    """This is no test build."""


# Where something could go wrong at ``name``: at most once a step, a batch or a message.
failpoint = _hit if IS_TEST_BUILD else _nothing


def arm(name: str, action: Callable[[], None]) -> None:
    """Call ``action`` whenever the point is reached, on the thread that does.

    Raises RuntimeError where this is no test build, and KeyError for a point that does not exist.
    """
    if not IS_TEST_BUILD:
        raise RuntimeError("this is no test build; start it with UNROLL_FAILPOINTS=1")
    if name not in POINTS:
        raise KeyError(name)
    _actions[name] = action


def disarm() -> None:
    """Every point does nothing again."""
    _actions.clear()
