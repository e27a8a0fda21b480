"""Around every call of our services: admission, domain errors to statuses, one count a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError

from service.engine.errors import EngineFailed, RequestError, ServiceStopping, WrongInput
from service.rpc.errors import STATUS_OF, abort

log = logging.getLogger(__name__)

# (model, method, gRPC status); the model is empty where a call names none that is known.
CountRequest = Callable[[str, str, str], None]
Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Gate:
    """Counts the calls under way and, once closed, lets no further one in."""

    def __init__(self) -> None:
        self.calls = 0
        self.closed = asyncio.Event()
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
class Unreadable:
    """In the place of a request: bytes that are no message of its kind, and why."""

    reason: str


def _reader_of(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """``deserialize`` that gives an Unreadable where it would raise.

    grpc tells a caller of what is raised there as of a failure of the server, and a stream's
    handler gets it in the midst of its work.
    """

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return Unreadable(str(error))

    return read


def checked(request: Any) -> Any:
    """Raises WrongInput for what could not be read."""
    if isinstance(request, Unreadable):
        raise WrongInput(
            f"the request cannot be read ({request.reason}); send a message of the method's type"
        )
    return request


class CallRequests:
    """The requests of a call that sends several, as they come.

    model: what the first one names, once it was read.
    """

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self.model = ""
        self._requests = aiter(requests)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        request = checked(await anext(self._requests))
        if request.HasField("start"):
            self.model = request.start.model
        return request


class CallCounter:
    """label: the label of a model's name, empty for one that is not known.

    Callers could invent any number of names.
    """

    def __init__(self, count: CountRequest, label: Callable[[str], str]) -> None:
        self._count = count
        self._label = label

    def __call__(self, model: str, method: str, code: grpc.StatusCode) -> None:
        self._count(self._label(model), method, code.name)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """services: full names whose methods are wrapped; others pass as they are.

    itself: methods whose handlers get each request as it came, Unreadable ones too, let it in
    and count it, since a call of theirs holds many that are answered side by side.
    """

    def __init__(
        self, services: Sequence[str], gate: Gate, count: CallCounter, itself: Sequence[str] = ()
    ) -> None:
        self.services = frozenset(services)
        self.gate = gate
        self.count = count
        self.itself = frozenset(itself)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        service, _, name = method.removeprefix("/").partition("/")
        if handler is None or service not in self.services:
            return handler
        if handler.request_streaming:
            wrap = grpc.stream_stream_rpc_method_handler
        elif handler.response_streaming:
            wrap = grpc.unary_stream_rpc_method_handler
        else:
            wrap = grpc.unary_unary_rpc_method_handler
        behaviour = handler.stream_stream or handler.unary_stream or handler.unary_unary
        if name in self.itself:
            around = self._with_status(name, behaviour)
        else:
            around = self._around(name, behaviour, handler.request_streaming)
        return wrap(
            around,
            request_deserializer=_reader_of(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _around(self, method: str, behaviour: Behaviour, takes_several: bool) -> Behaviour:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if takes_several:
                request = CallRequests(request)
            with Admission(self.gate, self.count, method, context) as admission:
                admission.enter(request)
                return await behaviour(request if takes_several else checked(request), context)
            # The call is over before its status is sent: behind messages that nobody reads, a
            # status waits for as long as its caller likes.
            assert admission.failure, "any other end is returned or raised above"
            return await abort(context, admission.failure)

        return call

    def _with_status(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await behaviour(requests, context)
            except grpc.aio.InternalError as error:
                raise asyncio.CancelledError from error
            except Exception as error:
                failure = failure_of(error, method)
            return await abort(context, failure)

        return call


class Admission:
    """Around one request: lets it in, counts it by what becomes of it, keeps why it failed.

    failure: what its caller is to be told; None where it went well.
    """

    def __init__(
        self, gate: Gate, count: CallCounter, method: str, context: grpc.aio.ServicerContext
    ) -> None:
        self.failure: RequestError | None = None
        self._gate = gate
        self._count = count
        self._method = method
        self._context = context
        self._request: Any = None
        self._has_entered = False

    def enter(self, request: Any) -> None:
        """Raises ServiceStopping."""
        self._request = request
        self._gate.enter()
        self._has_entered = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        """Domain errors and failures of the server end here; that the caller left does not."""
        code = self._code_of(error)
        if self._has_entered:
            self._gate.leave()
        self._count(_model_of(self._request), self._method, code)
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
