"""Admission of a request, from any front end: identity, budget, load, counting, observation."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from service.access.call import CallContext, RequestInfo
from service.access.codes import Code, code_of
from service.access.identity import CALLER, AllowAll, Guard, Metadata
from service.access.inflight import InflightTracker
from service.access.memory_budget import ANSWERS, REQUESTS, MemoryBudget, Reservation
from service.engine.errors import EngineFailed, RequestError, without_frames
from service.engine.shares import NOBODY, SHARE, Share
from service.observability.request_log import RequestObserver

log = logging.getLogger(__name__)

# (model, method, name of the code, seconds, why it failed); the model is empty where a call names
# none that is known.
CountRequest = Callable[[str, str, str, float, "RequestError | None"], None]

# Answers that are smaller leave at once, into the buffers of the connection; larger ones are
# there as a message and in the transport's hands.
_LARGE_ANSWER_BYTES, _ANSWER_FACTOR = 16_384, 2

# RFC 9218, "Extensible Prioritization Scheme for HTTP": urgency 0 comes first, 3 is the default.
_PRIORITY = re.compile(r"(?:.*[,;\s])?u=([0-7])(?:[,;\s].*)?")
_DEFAULT_URGENCY = 3


# A caller ends its call by its own clock, before ours does by as much as the request took to come.
DEADLINE_SLACK_SECONDS = 0.05


def admit_all(method: str) -> None:
    """Nothing is short."""


@dataclass(frozen=True)
class AdmissionControl:
    """What every request passes.

    count: called at each request's end. label: the label of a model's name, empty for one that is
    not known: callers could invent any number of names. budget: of the bytes that requests and
    answers take. check_load: raises Overloaded for a request of a method that cannot be taken on
    now.
    """

    inflight: InflightTracker
    count: CountRequest
    label: Callable[[str], str]
    budget: MemoryBudget
    guard: Guard = AllowAll()
    observer: RequestObserver = RequestObserver()
    check_load: Callable[[str], None] = admit_all

    def identify(self, method: str, metadata: Metadata) -> None:
        """Know whose call it is from now on. Raises what the guard raises."""
        CALLER.set(self.guard.caller(method, metadata))
        priority = _priority(metadata)
        SHARE.set(Share(priority=priority) if priority else NOBODY)

    def share(self, call: CallContext) -> None:
        """Know from now on what engines and budgets count it to: its name, or its connection."""
        caller, left = CALLER.get(), call.seconds_left()
        SHARE.set(
            Share(
                caller.name or call.peer,
                caller.weight,
                SHARE.get().priority,
                None if left is None else time.monotonic() + left,
            )
        )

    def refuse(self, call: CallContext, failure: RequestError) -> None:
        """Count and observe a call that was refused before anything of it was read."""
        if call.is_multiplexed:
            self.observer.open(call)
        observation = self.observer.begin(call)
        code = code_of(failure)
        self.count("", call.method, code.name, 0.0, failure)
        observation.end(None, "", CALLER.get().name, code, failure)

    def hold_answer(self, size: int) -> Reservation | None:
        """What a large answer takes until it has been read; None for a small one.

        size: bytes as it is sent. Raises Overloaded.
        """
        if size <= _LARGE_ANSWER_BYTES:
            return None
        return self.budget.reserve(ANSWERS, _ANSWER_FACTOR * size)


def release_with_call(held: Reservation) -> None:
    """Once the answer has been read: a call's task ends when the status behind it was taken."""
    task = asyncio.current_task()
    assert task is not None, "a call is a task"
    task.add_done_callback(lambda _: held.release())


def _priority(metadata: Metadata) -> int:
    """Of the header ``priority``; what cannot be read is the default, as RFC 9218 has it."""
    for key, value in metadata:
        if key == "priority" and isinstance(value, str):
            urgency = _PRIORITY.fullmatch(value)
            return _DEFAULT_URGENCY - int(urgency[1]) if urgency else 0
    return 0


class Admission:
    """Around one request: lets it in, counts it by what becomes of it, keeps why it failed.

    failure: why it failed; None where it went well. request: once it was read.
    """

    def __init__(self, control: AdmissionControl, call: CallContext) -> None:
        self.failure: RequestError | None = None
        self.request: RequestInfo | None = None
        self._control = control
        self._call = call
        self._caller: str | None = None  # whom it was let in for
        self._held: Reservation | None = None
        self._began = time.monotonic()
        self._observation = control.observer.begin(call)
        control.share(call)

    def hold(self, size: int) -> None:
        """Count ``size`` bytes of a message, and of what is made of it, until release().

        Raises Overloaded.
        """
        self._held = self._control.budget.reserve(REQUESTS, size)

    def release(self) -> None:
        """What was read last is needed no more."""
        if self._held:
            self._held.release()

    def enter(self, request: RequestInfo) -> None:
        """Raises ServiceStopping or Overloaded."""
        self.request = request
        self._observation.request_read(request)
        self._control.check_load(self._call.method)
        caller = SHARE.get().caller
        self._control.inflight.enter(caller)
        self._caller = caller

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        """Domain errors and failures of the server end here; that the caller left does not."""
        code = self._code_of(error)
        control, request = self._control, self.request
        self.release()
        if self._caller is not None:
            control.inflight.leave(self._caller)
        model = control.label(request.model) if request else ""
        seconds = time.monotonic() - self._began
        control.count(model, self._call.method, code.name, seconds, self.failure)
        self._observation.end(request, model, CALLER.get().name, code, self.failure)
        self.request = None
        if self.failure:
            without_frames(self.failure)
        return self.failure is not None

    def _code_of(self, error: BaseException | None) -> Code:
        if error is None:
            return Code.OK
        if isinstance(error, asyncio.CancelledError):
            # A deadline reaches a handler as a cancellation. It must be raised again: grpc leaks
            # the call when it is swallowed.
            left = self._call.seconds_left()
            is_late = left is not None and left <= DEADLINE_SLACK_SECONDS
            return Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED
        if isinstance(error, Exception):
            self.failure = failure_of(error, self._call.method)
            return code_of(self.failure)
        return Code.UNKNOWN  # the process ends


def failure_of(error: Exception, method: str) -> RequestError:
    """What a caller gets for ``error``; what is no domain error goes to the log."""
    if isinstance(error, RequestError):
        return error
    log.error("%s failed", method, exc_info=error)
    return EngineFailed("the server failed; see its log")
