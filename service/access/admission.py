"""Who is let in, and what is told of each request: gate, guard, watch, count and budget in one
place."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, Self

import grpc
from google.protobuf.message import DecodeError, Message

from service.access.memory_budget import ANSWERS, REQUESTS, MemoryBudget, Reservation
from service.engine.errors import (
    EngineFailed,
    Overloaded,
    RequestError,
    ServiceStopping,
    WrongInput,
)
from service.engine.shares import NOBODY, SHARE, Share
from service.grpc.errors import STATUS_OF, without_frames
from service.grpc.measure import resident_bytes

log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 0.5

# (model, method, gRPC status, seconds, why it failed); the model is empty where a call names none
# that is known.
CountRequest = Callable[[str, str, str, float, "RequestError | None"], None]
Metadata = Sequence[tuple[str, str | bytes]]
Parse = Callable[[bytes], Any]

# Answers that are smaller leave at once, into the buffers of the connection; larger ones are
# there as a message and in grpc's hands.
_LARGE_ANSWER_BYTES, _ANSWER_FACTOR = 16_384, 2

# RFC 9218, "Extensible Prioritization Scheme for HTTP": urgency 0 comes first, 3 is the default.
_PRIORITY = re.compile(r"(?:.*[,;\s])?u=([0-7])(?:[,;\s].*)?")
_DEFAULT_URGENCY = 3


@dataclass(frozen=True)
class Caller:
    """Whom a call is from. name: empty for callers without one. weight: of its share."""

    name: str = ""
    weight: float = 1.0


ANYONE = Caller()
# Of the request that is being served.
CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYONE)


class Guard(Protocol):
    """Knows who may call what."""

    def caller(self, method: str, metadata: Metadata) -> Caller:
        """Whose call of ``method`` (its name alone) this is. Raises RequestError's kinds."""


class AllowAll:
    """Lets everybody in."""

    def caller(self, method: str, metadata: Metadata) -> Caller:
        return ANYONE


class RequestObservation(Protocol):
    """One request while it is watched."""

    def request_read(self, request: Any) -> None:
        """Its message was read; it may yet be refused."""

    def end(
        self, request: Any, model: str, code: grpc.StatusCode, failure: RequestError | None
    ) -> None:
        """Nothing of it follows but its status.

        request: the message; None for one that was never read. model: its label.
        """


class RequestObserver(Protocol):
    """Hears of each request, for logs and traces."""

    def open(self, context: grpc.aio.ServicerContext) -> None:
        """A call begins that holds many requests."""

    def begin(self, method: str, context: grpc.aio.ServicerContext) -> RequestObservation: ...


class NoObserver:
    """Hears nothing."""

    def open(self, context: grpc.aio.ServicerContext) -> None:
        """Nobody asks."""

    def begin(self, method: str, context: grpc.aio.ServicerContext) -> RequestObservation:
        return self

    def request_read(self, request: Any) -> None:
        """Nobody asks."""

    def end(
        self, request: Any, model: str, code: grpc.StatusCode, failure: RequestError | None
    ) -> None:
        """Nobody asks."""


class InflightTracker:
    """Counts the requests under way and, once closed, lets no further one in.

    most_of_caller: requests that one caller may have under way.
    handing_over: set when those that are still under way are to go on elsewhere.
    """

    def __init__(self, most_of_caller: int) -> None:
        self.calls = 0
        self.most_of_caller = most_of_caller
        self._calls_of: Counter[str] = Counter()
        self.closed = asyncio.Event()
        self.handing_over = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def enter(self, caller: str) -> None:
        """Raises ServiceStopping when closed, Overloaded for a caller that has too many."""
        if self.is_closed:
            raise ServiceStopping("the server is stopping; send the request to another one")
        if self._calls_of[caller] >= self.most_of_caller:
            raise Overloaded(
                f"you have {self.most_of_caller} requests under way, and may have no more; wait "
                "for one to end",
                _RETRY_AFTER_SECONDS,
            )
        self._calls_of[caller] += 1
        self.calls += 1
        self._empty.clear()

    def leave(self, caller: str) -> None:
        self._calls_of[caller] -= 1
        if not self._calls_of[caller]:
            del self._calls_of[caller]
        self.calls -= 1
        if not self.calls:
            self._empty.set()

    async def wait_until_empty(self, seconds: float) -> bool:
        """Whether every call ended within ``seconds``."""
        if not self.calls:
            return True
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True


def admit_all(method: str) -> None:
    """Nothing is short."""


@dataclass(frozen=True)
class AdmissionControl:
    """What every request passes.

    count: hears of each request. label: the label of a model's name, empty for one that is not
    known: callers could invent any number of names. budget: of the bytes that requests and
    answers take. check_load: raises Overloaded for a request of a method that cannot be taken on
    now.
    """

    gate: InflightTracker
    count: CountRequest
    label: Callable[[str], str]
    budget: MemoryBudget
    guard: Guard = AllowAll()
    watch: RequestObserver = NoObserver()
    check_load: Callable[[str], None] = admit_all

    def identify(self, method: str, metadata: Metadata) -> None:
        """Know whose call it is from now on. Raises what the guard raises."""
        CALLER.set(self.guard.caller(method, metadata))
        priority = _priority(metadata)
        SHARE.set(Share(priority=priority) if priority else NOBODY)

    def share(self, context: grpc.aio.ServicerContext) -> None:
        """Know from now on what engines and budgets count it to: its name, or its connection."""
        caller, left = CALLER.get(), context.time_remaining()
        SHARE.set(
            Share(
                caller.name or context.peer(),
                caller.weight,
                SHARE.get().priority,
                None if left is None else time.monotonic() + left,
            )
        )

    def hold_answer(self, response: Message | None) -> Reservation | None:
        """What a large answer takes until it has been read; None for a small one.

        Raises Overloaded.
        """
        size = 0 if response is None else response.ByteSize()
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

    failure: what its caller is to be told; None where it went well. request: once it was read.
    """

    def __init__(
        self, reception: AdmissionControl, method: str, context: grpc.aio.ServicerContext
    ) -> None:
        self.failure: RequestError | None = None
        self.request: Any = None
        self._reception = reception
        self._method = method
        self._context = context
        self._caller: str | None = None  # whom it was let in for
        self._held: Reservation | None = None
        self._began = time.monotonic()
        self._watched = reception.watch.begin(method, context)
        reception.share(context)

    def read(self, data: bytes, parse: Parse) -> Any:
        """The message in ``data``, which counts until release(). Raises Overloaded, WrongInput."""
        try:
            message = parse(data)
        except DecodeError as error:
            raise WrongInput(
                f"the request cannot be read ({error}); send a message of the method's type"
            ) from error
        size = resident_bytes(message, len(data))
        self._held = self._reception.budget.reserve(REQUESTS, size)
        return message

    def release(self) -> None:
        """What was read last is needed no more."""
        if self._held:
            self._held.release()

    def enter(self, request: Any) -> None:
        """Raises ServiceStopping or Overloaded."""
        self.request = request
        self._watched.request_read(request)
        self._reception.check_load(self._method)
        caller = SHARE.get().caller
        self._reception.gate.enter(caller)
        self._caller = caller

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        """Domain errors and failures of the server end here; that the caller left does not."""
        code = self._code_of(error)
        reception = self._reception
        self.release()
        if self._caller is not None:
            reception.gate.leave(self._caller)
        model = reception.label(_model_of(self.request))
        seconds = time.monotonic() - self._began
        reception.count(model, self._method, code.name, seconds, self.failure)
        self._watched.end(self.request, model, code, self.failure)
        self.request = None
        if isinstance(error, grpc.aio.InternalError):
            # A message cannot be sent: the caller left, and we have yet to hear of it.
            raise asyncio.CancelledError from error
        if self.failure:
            without_frames(self.failure)
        return self.failure is not None

    def _code_of(self, error: BaseException | None) -> grpc.StatusCode:
        if error is None:
            return grpc.StatusCode.OK
        if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
            # A deadline reaches a handler as a cancellation. It must be raised again: grpc leaks
            # the call when it is swallowed.
            return _cancelled_or_late(self._context)
        if isinstance(error, Exception):
            self.failure = failure_of(error, self._method)
            return STATUS_OF[type(self.failure)]
        return grpc.StatusCode.UNKNOWN  # the process is told to end


def failure_of(error: Exception, method: str) -> RequestError:
    """What a caller is told of ``error``; what is no domain error goes to the log."""
    if isinstance(error, RequestError):
        return error
    log.error("%s failed", method, exc_info=error)
    return EngineFailed("the server failed; see its log")


def _model_of(request: Any) -> str:
    """The name in whichever field the message has it."""
    fields = ("model", "model_name", "name")
    return next((name for name in (getattr(request, f, "") for f in fields) if name), "")


def _cancelled_or_late(context: grpc.aio.ServicerContext) -> grpc.StatusCode:
    left = context.time_remaining()
    late = left is not None and left <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
