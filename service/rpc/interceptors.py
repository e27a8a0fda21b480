"""Around every call of this service: admission, domain errors to statuses, one count a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, Self

import grpc

from service.engine.errors import EngineFailed, RequestError, ServiceStopping
from service.rpc.errors import STATUS_OF, abort

log = logging.getLogger(__name__)

# (model, method, gRPC status)
CountRequest = Callable[[str, str, str], None]
Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Gate:
    """Counts the calls under way and, once closed, lets no further one in."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def close(self) -> None:
        self.is_closed = True

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
        request = await anext(self._requests)
        if request.HasField("start"):
            self.model = request.start.model
        return request


class CallInterceptor(grpc.aio.ServerInterceptor):
    """service: the full name whose methods are wrapped; others pass as they are.

    known_model: whether a name may become a label; callers could invent any number of others.
    """

    def __init__(
        self,
        service: str,
        gate: Gate,
        count: CountRequest,
        known_model: Callable[[str], bool],
    ) -> None:
        self.prefix = f"/{service}/"
        self.gate = gate
        self.count = count
        self.known_model = known_model

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or not method.startswith(self.prefix):
            return handler
        name = method.removeprefix(self.prefix)
        if handler.request_streaming:
            wrap = grpc.stream_stream_rpc_method_handler
        elif handler.response_streaming:
            wrap = grpc.unary_stream_rpc_method_handler
        else:
            wrap = grpc.unary_unary_rpc_method_handler
        behaviour = handler.stream_stream or handler.unary_stream or handler.unary_unary
        return wrap(
            self._around(name, behaviour, handler.request_streaming),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _around(self, method: str, behaviour: Behaviour, takes_several: bool) -> Behaviour:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if takes_several:
                request = CallRequests(request)
            code = grpc.StatusCode.OK
            failure: RequestError
            entered = False
            try:
                self.gate.enter()
                entered = True
                return await behaviour(request, context)
            except asyncio.CancelledError:
                # A deadline reaches a handler as a cancellation. It must be raised again:
                # grpc leaks the call when it is swallowed.
                code = _cancelled_or_late(context)
                raise
            except grpc.aio.InternalError as error:
                # A message cannot be sent: the caller left, and we have yet to hear of it.
                code = _cancelled_or_late(context)
                raise asyncio.CancelledError from error
            except RequestError as error:
                failure = error
                code = STATUS_OF[type(error)]
            except Exception:
                failure = EngineFailed("the server failed; see its log")
                code = STATUS_OF[EngineFailed]
                log.exception("%s failed", method)
            finally:
                if entered:
                    self.gate.leave()
                self.count(self._label(request), method, code.name)
            # The call is over before its status is sent: behind messages that nobody reads, a
            # status waits for as long as its caller likes.
            return await abort(context, failure)

        return call

    def _label(self, request: Any) -> str:
        name: str = getattr(request, "model", "") or getattr(request, "name", "")
        return name if self.known_model(name) else ""


def _cancelled_or_late(context: grpc.aio.ServicerContext) -> grpc.StatusCode:
    left = context.time_remaining()
    late = left is not None and left <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
