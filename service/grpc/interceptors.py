"""The interceptor around every call: admission, bodies, errors to statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import grpc

from service.access.admission import (
    Admission,
    AdmissionControl,
    failure_of,
    release_with_call,
)
from service.engine.errors import RequestError, without_frames
from service.grpc.bodies import Bodies, Incoming, Parse, read_message
from service.grpc.call import CALLER_LEFT, GrpcCall, MessageRequest
from service.grpc.errors import abortion, end_with
from service.grpc.send import MessageWriter

Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class CallRequests:
    """The requests of a call that sends several, as they come; each is held until the next.

    As a RequestInfo it is the whole call. model: what the first one names, once it was read.
    """

    id = ""

    def __init__(
        self, context: grpc.aio.ServicerContext, admission: Admission, parse: Parse
    ) -> None:
        self.model = ""
        self._incoming = Incoming(context)
        self._admission = admission
        self._parse = parse

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._admission.release()
        request = read_message(self._admission, await anext(self._incoming), self._parse)
        if request.HasField("start"):
            self.model = request.start.model
        return request

    def text(self) -> str:
        """None of it: the requests are gone when the call ends."""
        return ""

    def release(self) -> None:
        """No further one is read, and what was read last is needed no more."""
        self._admission.release()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """services: full names whose methods are wrapped; others pass as they are.

    multiplexed: methods whose handlers get each request as bytes and let it in themselves, since a
    call of theirs holds many that are answered side by side.

    Whose call it is, is known before any of its body is read.
    """

    def __init__(
        self,
        services: Sequence[str],
        admission: AdmissionControl,
        bodies: Bodies,
        stall_seconds: float,
        multiplexed: Sequence[str] = (),
    ) -> None:
        self.services = frozenset(services)
        self.admission = admission
        self.bodies = bodies
        self.stall_seconds = stall_seconds
        self.multiplexed = frozenset(multiplexed)
        # By method, made once: whose body grpc reads, and whose body is read here.
        self._handlers: dict[str, tuple[grpc.RpcMethodHandler, grpc.RpcMethodHandler]] = {}

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
        try:
            self.admission.identify(name, handler_call_details.invocation_metadata or ())
        except RequestError as error:
            return self._refusal(service, name, without_frames(error))
        if method not in self._handlers:
            self._handlers[method] = self._wrapped(service, name, handler)
        read_by_grpc, read_here = self._handlers[method]
        if handler.request_streaming or self.bodies.expect():
            return read_by_grpc
        return read_here

    def _refusal(self, service: str, name: str, failure: RequestError) -> grpc.RpcMethodHandler:
        """Reads nothing of the call, whatever kind its method is of."""

        async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
            self.admission.refuse(self._call(context, service, name), failure)
            end_with(context, failure)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _call(self, context: grpc.aio.ServicerContext, service: str, name: str) -> GrpcCall:
        return GrpcCall(context, service, name, name in self.multiplexed)

    def _wrapped(
        self, service: str, name: str, handler: grpc.RpcMethodHandler
    ) -> tuple[grpc.RpcMethodHandler, grpc.RpcMethodHandler]:
        behaviour = handler.stream_stream or handler.unary_stream or handler.unary_unary
        serializer, parse = handler.response_serializer, handler.request_deserializer
        if handler.request_streaming:
            context = (
                self._with_status(service, name, behaviour)
                if name in self.multiplexed
                else self._with_requests(service, name, behaviour, parse)
            )
            wrapped = grpc.stream_stream_rpc_method_handler(context, None, serializer)
            return wrapped, wrapped
        wrap = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        # No partials: grpc looks into each of them, call by call, for what they are of.

        async def arrived(body: bytes, context: grpc.aio.ServicerContext) -> Any:
            self.bodies.arrived()
            response, failure = await self._one(
                GrpcCall(context, service, name), behaviour, parse, body
            )
            if failure is None:
                return response
            aborting = abortion(context, failure)
            del context, body, failure  # see abortion()
            return await aborting

        async def timed(_: Any, context: grpc.aio.ServicerContext) -> None:
            body = self.bodies.read(context)
            response, failure = await self._one(
                GrpcCall(context, service, name), behaviour, parse, body
            )
            if failure:
                end_with(context, failure)
            elif response is not None:
                await MessageWriter(context, self.stall_seconds).write(response)

        return (
            wrap(arrived, None, serializer),
            grpc.stream_stream_rpc_method_handler(timed, None, serializer),
        )

    async def _one(
        self,
        call: GrpcCall,
        behaviour: Behaviour,
        parse: Parse,
        body: bytes | Awaitable[bytes],
    ) -> tuple[Any, RequestError | None]:
        """The answer of a call with one request, None where it was written; or why it failed."""
        with Admission(self.admission, call) as admission, CALLER_LEFT:
            data = body if isinstance(body, bytes) else await body
            request = read_message(admission, data, parse)
            admission.enter(MessageRequest(request))
            response = await behaviour(request, call.context)
            size = 0 if response is None else response.ByteSize()
            if held := self.admission.hold_answer(size):
                release_with_call(held)
            return response, None
        # The call is over before its status is sent: behind messages that nobody reads, a
        # status waits for as long as its caller likes.
        assert admission.failure, "any other end is returned or raised above"
        return None, admission.failure

    def _with_requests(
        self, service: str, name: str, behaviour: Behaviour, parse: Parse
    ) -> Behaviour:
        async def call(_: Any, context: grpc.aio.ServicerContext) -> None:
            called = GrpcCall(context, service, name)
            with Admission(self.admission, called) as admission, CALLER_LEFT:
                requests = CallRequests(context, admission, parse)
                admission.enter(requests)
                await behaviour(requests, context)
                return
            assert admission.failure, "any other end is returned or raised above"
            end_with(context, admission.failure)

        return call

    def _with_status(self, service: str, name: str, behaviour: Behaviour) -> Behaviour:
        async def call(_: Any, context: grpc.aio.ServicerContext) -> Any:
            called = self._call(context, service, name)
            self.admission.observer.open(called)
            self.admission.share(called)
            try:
                with CALLER_LEFT:
                    return await behaviour(Incoming(context), context)
            except Exception as error:
                failure = without_frames(failure_of(error, name))
            return end_with(context, failure)

        return call
