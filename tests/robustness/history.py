"""What callers did and what they were answered, with the times of both."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

OK = "OK"
# That its caller left; said by the caller, whatever the service says of it.
LEFT = "left"
# A stream that is to go on at another service.
HANDED_OVER = "handed over"

# Methods, as the checks name them.
GENERATE, TAGS, CLASSIFY, SEQUENCE, LOAD, UNLOAD = (
    "generate", "tags", "classify", "sequence", "load", "unload",
)  # fmt: skip


@dataclass
class Call:
    """One request of one caller.

    about: what it was, as the checks look up what it should give. start: the position at which
    a stream goes on. group: of what it is a part: a sequence, or a stream with those that went on
    with it. began, ended: monotonic seconds; ended is None for a call that never did.
    status: OK, LEFT, HANDED_OVER, or the name of the status. answer: of a stream, what was read
    until then. finishes: how often it was reported finished. may_be_unread: the way to
    the service broke, maybe before the service knew of it.
    """

    kind: str
    about: Any
    group: int = 0
    start: int = 0
    began: float = 0.0
    ended: float | None = None
    status: str = ""
    detail: str = ""
    answer: Any = None
    finishes: int = 0
    may_be_unread: bool = False


@dataclass
class History:
    """Calls in the order in which they began."""

    calls: list[Call] = field(default_factory=list)
    _groups: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def group(self) -> int:
        return next(self._groups)

    def of(self, *kinds: str) -> list[Call]:
        return [call for call in self.calls if call.kind in kinds]

    @contextmanager
    def call(self, kind: str, about: Any, group: int = 0, start: int = 0) -> Iterator[Call]:
        """Records a call, which is made in the block; its caller sets the answer."""
        call = Call(kind, about, group, start, time.monotonic())
        self.calls.append(call)
        try:
            yield call
            call.status = call.status or OK
        except grpc.aio.AioRpcError as error:
            call.status, call.detail = error.code().name, error.details() or ""
        call.ended = time.monotonic()
