"""Calls of methods out of requests of HTTP, for the protocols that speak JSON.

Such a protocol finds the method, says how the request's body becomes the method's message, and
writes what comes back; identity, admission, limits, deadlines and refusals are the same as gRPC's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from google.protobuf.message import Message

from service.access.codes import Code
from service.access.identity import Metadata
from service.asgi.events import Headers, Receive, Scope, peer_of
from service.asgi.request import Bodies, Body
from service.engine.errors import RequestError
from service.front_end import FrontEndSettings
from service.rpc.call import Take
from service.rpc.methods import Method
from service.rpc.pipeline import Pipeline
from service.rpc.status import OK, Status, status_of

Write = Callable[[Message], Awaitable[None]]


class WriteNow(Protocol):
    """Writes messages without a task that waits for it, while there is room."""

    def has_room(self) -> bool: ...

    def write_now(self, message: Message) -> None: ...


Read = Callable[[Body], Awaitable[Message]]

# google.rpc.Code's own table of HTTP statuses, in code.proto.
_HTTP_STATUSES = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


def http_status(status: Status) -> int:
    return _HTTP_STATUSES[status.code]


def headers_of(status: Status) -> Headers:
    """That go with a refusal."""
    if status.retry_after_seconds is None:
        return []
    return [(b"retry-after", b"%d" % max(1, round(status.retry_after_seconds)))]


class HttpCall:
    """A ServerCall with one request; see there for what each part is.

    protocol: such as "http" or "connect". write: takes each message of the response.
    seconds: until its deadline; None for none. write_now: where messages may be written at once.
    """

    __slots__ = (
        "_response", "_until", "_write", "_write_now", "is_multiplexed", "metadata", "method",
        "peer", "protocol", "service", "trailers",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        method: Method,
        protocol: str,
        write: Write,
        seconds: float | None,
        write_now: WriteNow | None = None,
    ) -> None:
        self.protocol = protocol
        self.service, self.method = method.service, method.name
        self.is_multiplexed = False
        self.peer = peer_of(scope)
        self.metadata: Metadata = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        # By name; sent with the response where its headers have not left yet.
        self.trailers: dict[str, str] = {}
        self._write, self._write_now = write, write_now
        self._response = method.response
        self._until = None if seconds is None else time.monotonic() + seconds

    def seconds_left(self) -> float | None:
        return None if self._until is None else self._until - time.monotonic()

    def set_trailer(self, name: str, value: str) -> None:
        self.trailers[name] = value

    async def read(self) -> bytes | None:
        return None

    def read_through(self, take: Take | None) -> None:
        """There is nothing to read."""

    async def write(self, message: Message) -> None:
        await self._write(message)

    def has_room(self) -> bool:
        return self._write_now is not None and self._write_now.has_room()

    def write_now(self, data: bytes) -> None:
        assert self._write_now is not None, "there is room"
        self._write_now.write_now(self._response.FromString(data))

    async def send_headers(self) -> None:
        """The first message sends them."""


class HttpCalls:
    """Calls ``methods`` with one request each, whatever number of messages answers them."""

    def __init__(
        self, methods: Mapping[str, Method], pipeline: Pipeline, settings: FrontEndSettings
    ) -> None:
        self.methods = methods
        self._pipeline = pipeline
        self._bodies = Bodies(settings, pipeline.admission.budget)

    async def call(
        self,
        scope: Scope,
        receive: Receive,
        path: str,
        read: Read,
        write: Write,
        protocol: str = "http",
        seconds: float | None = None,
        write_now: WriteNow | None = None,
    ) -> tuple[Message | None, Status]:
        """The answer, None where all of it was written, and how the call ended.

        path: of the method, as gRPC has it. read: the method's message out of the request's body;
        what it raises of RequestError refuses the call. write: waits for a caller that does not
        read. seconds: until the deadline. write_now: where write() would not wait.
        """
        method = self.methods[path]
        call = HttpCall(scope, method, protocol, write, seconds, write_now)
        try:
            self._pipeline.identify(method, call.metadata)
        except RequestError as error:
            self._pipeline.refuse(call, error)
            return None, status_of(error)
        body = self._bodies.of(call.peer, receive)

        async def request() -> bytes:
            data: bytes = (await read(body)).SerializeToString()
            return data

        try:
            async with asyncio.timeout(seconds):
                response, failure = await self._pipeline.answer(method, call, request())
        except TimeoutError:
            return None, Status(Code.DEADLINE_EXCEEDED, "the call's deadline has passed")
        return response, status_of(failure) if failure else OK
