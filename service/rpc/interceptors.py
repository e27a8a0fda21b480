"""Around every call of our services: who may, how many, domain errors to statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError

from service.engine.errors import RequestError, WrongInput
from service.rpc.errors import STATUS_OF, abort
from service.rpc.reception import Admission, Reception, failure_of

Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


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
        self._requests = requests
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        # Not before: grpc complains of a receiver that was made and never asked.
        if self._iterator is None:
            self._iterator = aiter(self._requests)
        request = checked(await anext(self._iterator))
        if request.HasField("start"):
            self.model = request.start.model
        return request


class CallInterceptor(grpc.aio.ServerInterceptor):
    """services: full names whose methods are wrapped; others pass as they are.

    itself: methods whose handlers get each request as it came, Unreadable ones too, and let it
    in, since a call of theirs holds many that are answered side by side. Whose call it is, is
    known before its first request.
    """

    def __init__(
        self, services: Sequence[str], reception: Reception, itself: Sequence[str] = ()
    ) -> None:
        self.services = frozenset(services)
        self.reception = reception
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
            with Admission(self.reception, method, context) as admission:
                admission.identify()
                admission.enter(request)
                return await behaviour(request if takes_several else checked(request), context)
            # The call is over before its status is sent: behind messages that nobody reads, a
            # status waits for as long as its caller likes.
            assert admission.failure, "any other end is returned or raised above"
            return await abort(context, admission.failure)

        return call

    def _with_status(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: grpc.aio.ServicerContext) -> Any:
            self.reception.watch.open(context)
            try:
                self._identify(method, context)
                return await behaviour(requests, context)
            except grpc.aio.InternalError as error:
                raise asyncio.CancelledError from error
            except Exception as error:
                failure = failure_of(error, method)
            return await abort(context, failure)

        return call

    def _identify(self, method: str, context: grpc.aio.ServicerContext) -> None:
        """Counts, and tells of, a call that is refused before any request of it was read."""
        try:
            self.reception.identify(method, context)
        except RequestError as error:
            code = STATUS_OF[type(error)]
            self.reception.count("", method, code.name, 0.0, error)
            self.reception.watch.begin(method, context).end(None, "", code, error)
            raise
