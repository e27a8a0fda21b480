"""The handlers that grpc calls, one a method: who reads the body, and how the call ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from service.engine.errors import RequestError
from service.grpc.bodies import Bodies
from service.grpc.call import GrpcCall
from service.grpc.errors import abortion, end_with
from service.rpc.methods import Method
from service.rpc.pipeline import Pipeline
from service.rpc.writer import MessageWriter

Handler = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


def _serialized(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data


class MethodHandlers(grpc.GenericRpcHandler):
    """Handlers of ``methods``, by path; grpc asks in the task of each call.

    Whose call it is, is known before any of its body is read.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        pipeline: Pipeline,
        bodies: Bodies,
        stall_seconds: float,
    ) -> None:
        self._methods = methods
        self._pipeline = pipeline
        self._bodies = bodies
        self._stall_seconds = stall_seconds
        # Made once: whose body grpc reads, and whose body is read here.
        self._handlers = {path: self._made(method) for path, method in methods.items()}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self._methods.get(details.method)
        if method is None:
            return None
        try:
            self._pipeline.identify(method, details.invocation_metadata or ())
        except RequestError as error:
            return self._refusal(method, error)
        read_by_grpc, read_here = self._handlers[details.method]
        if method.reads_several or not method.is_admitted or self._bodies.expect():
            return read_by_grpc
        return read_here

    def _refusal(self, method: Method, failure: RequestError) -> grpc.RpcMethodHandler:
        """Reads nothing of the call, whatever kind its method is of."""

        async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
            self._pipeline.refuse(GrpcCall(context, method), failure)
            end_with(context, failure)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _made(self, method: Method) -> tuple[grpc.RpcMethodHandler, grpc.RpcMethodHandler]:
        if method.reads_several:
            serve = grpc.stream_stream_rpc_method_handler(self._serving(method), None, _serialized)
            return serve, serve
        wrap = (
            grpc.unary_stream_rpc_method_handler
            if method.writes_several
            else grpc.unary_unary_rpc_method_handler
        )
        return (
            wrap(self._arrived(method), None, _serialized),
            grpc.stream_stream_rpc_method_handler(self._timed(method), None, _serialized),
        )

    # No partials in what these return: grpc looks into each of them, call by call, for what they
    # are of.

    def _serving(self, method: Method) -> Handler:
        async def serve(_: Any, context: grpc.aio.ServicerContext) -> None:
            if failure := await self._pipeline.serve(method, GrpcCall(context, method)):
                end_with(context, failure)

        return serve

    def _arrived(self, method: Method) -> Handler:
        async def answer(body: bytes, context: grpc.aio.ServicerContext) -> Any:
            self._bodies.arrived()
            response, failure = await self._pipeline.answer(method, GrpcCall(context, method), body)
            if failure is None:
                return response
            aborting = abortion(context, failure)
            del context, body, failure  # see abortion()
            return await aborting

        return answer

    def _timed(self, method: Method) -> Handler:
        async def answer(_: Any, context: grpc.aio.ServicerContext) -> None:
            call = GrpcCall(context, method)
            response, failure = await self._pipeline.answer(
                method, call, self._bodies.read(context)
            )
            if failure:
                end_with(context, failure)
            elif response is not None:
                await MessageWriter(call, self._stall_seconds).write(response)

        return answer
