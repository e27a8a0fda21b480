"""Who is let in, and what is told of each request: gate, guard, watch and count in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, Self

import grpc

from service.engine.errors import EngineFailed, RequestError, ServiceStopping
from service.rpc.errors import STATUS_OF

log = logging.getLogger(__name__)

# (model, method, gRPC status, seconds, why it failed); the model is empty where a call names none
# that is known.
CountRequest = Callable[[str, str, str, float, "RequestError | None"], None]
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Caller:
    """Whom a call is from. name: empty for callers without one."""

    name: str = ""


ANYONE = Caller()
# Of the request that is being served.
CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYONE)


class Guard(Protocol):
    """Knows who may call what."""

    def caller(self, method: str, metadata: Metadata) -> Caller:
        """Whose call of ``method`` (its name alone) this is. Raises RequestError's kinds."""


class Open:
    """Lets everybody in."""

    def caller(self, method: str, metadata: Metadata) -> Caller:
        return ANYONE


class Watched(Protocol):
    """One request while it is watched."""

    def asks(self, request: Any) -> None:
        """Its message was read; it may yet be refused."""

    def end(
        self, request: Any, model: str, code: grpc.StatusCode, failure: RequestError | None
    ) -> None:
        """Nothing of it follows but its status.

        request: the message; None for one that was never read. model: its label.
        """


class Watch(Protocol):
    """Hears of each request, for logs and traces."""

    def open(self, context: grpc.aio.ServicerContext) -> None:
        """A call begins that holds many requests."""

    def begin(self, method: str, context: grpc.aio.ServicerContext) -> Watched: ...


class Unwatched:
    """Hears nothing."""

    def open(self, context: grpc.aio.ServicerContext) -> None:
        """Nobody asks."""

    def begin(self, method: str, context: grpc.aio.ServicerContext) -> Watched:
        return self

    def asks(self, request: Any) -> None:
        """Nobody asks."""

    def end(
        self, request: Any, model: str, code: grpc.StatusCode, failure: RequestError | None
    ) -> None:
        """Nobody asks."""


class Gate:
    """Counts the calls under way and, once closed, lets no further one in.

    handing_over: set when those that are still under way are to go on elsewhere.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.closed = asyncio.Event()
        self.handing_over = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def enter(self) -> None:
        """Raises ServiceStopping when closed."""
        if self.is_closed:
            raise ServiceStopping("the server is stopping; send the request to another one")
        self.calls += 1
        self._empty.clear()

    def leave(self) -> None:
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


@dataclass(frozen=True)
class Reception:
    """What every request passes.

    count: hears of each request. label: the label of a model's name, empty for one that is not
    known: callers could invent any number of names.
    """

    gate: Gate
    count: CountRequest
    label: Callable[[str], str]
    guard: Guard = Open()
    watch: Watch = Unwatched()

    def identify(self, method: str, context: grpc.aio.ServicerContext) -> None:
        """Know whose call it is from now on. Raises what the guard raises."""
        CALLER.set(self.guard.caller(method, context.invocation_metadata() or ()))


class Admission:
    """Around one request: lets it in, counts it by what becomes of it, keeps why it failed.

    failure: what its caller is to be told; None where it went well.
    """

    def __init__(
        self, reception: Reception, method: str, context: grpc.aio.ServicerContext
    ) -> None:
        self.failure: RequestError | None = None
        self._reception = reception
        self._method = method
        self._context = context
        self._request: Any = None
        self._has_entered = False
        self._began = time.monotonic()
        self._watched = reception.watch.begin(method, context)

    def identify(self) -> None:
        """As Reception.identify()."""
        self._reception.identify(self._method, self._context)

    def enter(self, request: Any) -> None:
        """Raises ServiceStopping."""
        self._request = request
        self._watched.asks(request)
        self._reception.gate.enter()
        self._has_entered = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        """Domain errors and failures of the server end here; that the caller left does not."""
        code = self._code_of(error)
        reception = self._reception
        if self._has_entered:
            reception.gate.leave()
        model = reception.label(_model_of(self._request))
        seconds = time.monotonic() - self._began
        reception.count(model, self._method, code.name, seconds, self.failure)
        self._watched.end(self._request, model, code, self.failure)
        if isinstance(error, grpc.aio.InternalError):
            # A message cannot be sent: the caller left, and we have yet to hear of it.
            raise asyncio.CancelledError from error
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
