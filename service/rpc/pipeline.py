"""What every call passes around its method: identity, admission, reading, errors to statuses."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Self

from google.protobuf.message import DecodeError, Message

from service.access.admission import Admission, AdmissionControl, failure_of, release_with_call
from service.access.identity import Metadata
from service.engine.errors import RequestError, WrongInput, without_frames
from service.rpc.call import Incoming, MessageRequest, ServerCall
from service.rpc.measure import resident_bytes
from service.rpc.methods import Method


def parsed(request: type[Message], data: bytes) -> Any:
    """Raises WrongInput."""
    try:
        return request.FromString(data)
    except DecodeError as error:
        raise WrongInput(
            f"the request cannot be read ({error}); send a message of the method's type"
        ) from error


def read_message(admission: Admission, data: bytes, request: type[Message]) -> Any:
    """The message in ``data``, which counts until ``admission`` releases it.

    Raises Overloaded or WrongInput.
    """
    message = parsed(request, data)
    admission.hold(resident_bytes(message, len(data)))
    return message


class CallRequests:
    """The requests of a call that sends several, as they come; each is held until the next.

    As a RequestInfo it is the whole call. model: what the first one names, once it was read.
    """

    id = ""

    def __init__(self, call: ServerCall, admission: Admission, request: type[Message]) -> None:
        self.model = ""
        self._incoming = Incoming(call)
        self._admission = admission
        self._request = request

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._admission.release()
        request = read_message(self._admission, await anext(self._incoming), self._request)
        if request.HasField("start"):
            self.model = request.start.model
        return request

    def text(self) -> str:
        """None of it: the requests are gone when the call ends."""
        return ""

    def release(self) -> None:
        """No further one is read, and what was read last is needed no more."""
        self._admission.release()


class Pipeline:
    """Serves calls of methods, each in a task of its own; front ends read, write and end them.

    A front end calls identify() before it reads anything of a call, then answer() or serve().
    """

    def __init__(self, admission: AdmissionControl) -> None:
        self.admission = admission

    def identify(self, method: Method, metadata: Metadata) -> None:
        """Know whose call it is from now on. Raises Unauthenticated or PermissionDenied."""
        if method.is_admitted:
            self.admission.identify(method.name, metadata)

    def refuse(self, call: ServerCall, failure: RequestError) -> None:
        """Count and observe a call that was refused before anything of it was read."""
        self.admission.refuse(call, without_frames(failure))

    async def answer(
        self, method: Method, call: ServerCall, body: bytes | Awaitable[bytes]
    ) -> tuple[Message | None, RequestError | None]:
        """The answer to a call with one request, None where it was written; or why it failed."""
        if not method.is_admitted:
            return await self._unadmitted(method, call, body)
        with Admission(self.admission, call) as admission:
            data = body if isinstance(body, bytes) else await body
            request = read_message(admission, data, method.request)
            admission.enter(MessageRequest(request))
            response = await method.behaviour(request, call)
            size = 0 if response is None else response.ByteSize()
            if held := self.admission.hold_answer(size):
                release_with_call(held)
            return response, None
        # The call is over before its status is sent: behind messages that nobody reads, a
        # status waits for as long as its caller likes.
        assert admission.failure, "any other end is returned or raised above"
        return None, admission.failure

    async def serve(self, method: Method, call: ServerCall) -> RequestError | None:
        """A call with several requests, all of whose answers are written. Returns why it failed."""
        if method.is_multiplexed:
            return await self._multiplexed(method, call)
        if not method.is_admitted:
            return await self._unadmitted_stream(method, call)
        with Admission(self.admission, call) as admission:
            requests = CallRequests(call, admission, method.request)
            admission.enter(requests)
            await method.behaviour(requests, call)
            return None
        assert admission.failure, "any other end is returned or raised above"
        return admission.failure

    async def _multiplexed(self, method: Method, call: ServerCall) -> RequestError | None:
        """Its requests are admitted one by one, by the method."""
        self.admission.observer.open(call)
        self.admission.share(call)
        try:
            await method.behaviour(Incoming(call), call)
        except Exception as error:
            return without_frames(failure_of(error, method.name))
        return None

    async def _unadmitted(
        self, method: Method, call: ServerCall, body: bytes | Awaitable[bytes]
    ) -> tuple[Message | None, RequestError | None]:
        try:
            data = body if isinstance(body, bytes) else await body
            return await method.behaviour(parsed(method.request, data), call), None
        except Exception as error:
            return None, without_frames(failure_of(error, method.name))

    async def _unadmitted_stream(self, method: Method, call: ServerCall) -> RequestError | None:
        async def requests() -> Any:
            async for data in Incoming(call):
                yield parsed(method.request, data)

        try:
            await method.behaviour(requests(), call)
        except Exception as error:
            return without_frames(failure_of(error, method.name))
        return None
