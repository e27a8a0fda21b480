"""Calls and messages as methods, admission and observation see them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from service.access.call import CallContext
from unroll.v1 import unroll_pb2

# Takes a request as it came, uncompressed, and returns whether it did. It does not raise.
Take = Callable[[bytes], bool]

# Of a request whose text is logged; a longer one is not worth the event loop's time.
_MOST_TEXT_BYTES = 16_384
# Requests that may have a resume token.
_RESUMABLE = (unroll_pb2.GenerateRequest, unroll_pb2.ForecastRequest)


class ServerCall(CallContext, Protocol):
    """A call while it is served.

    Whatever a transport fails with because its caller has left is raised as CancelledError.
    """

    async def read(self) -> bytes | None:
        """The next request as it came, uncompressed; None once the caller has sent all.

        Raises RequestError for one that the transport does not take.
        """

    def read_through(self, take: Take | None) -> None:
        """Ask ``take`` first, from now on, for each request that comes while read() waits; what it
        does not take is read. None ends that. Transports that wake a task anyway need not."""

    async def write(self, message: Message) -> None:
        """Returns once the transport takes more: it waits for a caller that does not read."""

    def has_room(self) -> bool:
        """Whether write() would return at once now, and write_now() may be called."""

    def write_now(self, data: bytes) -> None:
        """Write a message of the method's response that is serialized already."""

    async def send_headers(self) -> None:
        """Let the caller know that the call was taken; otherwise the first message does."""


@cache
def _fields_of_model(request: Descriptor) -> tuple[str, ...]:
    """Those of its fields that may name a model."""
    known = request.fields_by_name
    return tuple(name for name in ("model", "model_name", "name") if name in known)


class Incoming:
    """The requests of a call that sends several, as bytes; none is kept once it is handed out."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> bytes:
        body = await self._call.read()
        if body is None:
            raise StopAsyncIteration
        return body


class MessageRequest:
    """A message as a RequestInfo."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message: Any = message

    @property
    def model(self) -> str:
        """The name in whichever field the message has it."""
        for field in _fields_of_model(self._message.DESCRIPTOR):
            if name := getattr(self._message, field):
                found: str = name
                return found
        return ""

    @property
    def id(self) -> str:
        """Of the inference protocol's requests, which have a field for it."""
        own: str = getattr(self._message, "id", "")
        return own

    def text(self) -> str:
        """Without a resume token: whoever reads it could go on with the stream."""
        message = self._message
        if isinstance(message, _RESUMABLE) and message.resume_token:
            sent, message = message, type(message)()
            message.CopyFrom(sent)
            message.resume_token = b"..."
        if (size := message.ByteSize()) > _MOST_TEXT_BYTES:
            return f"({size} bytes)"
        text: str = MessageToString(message, as_one_line=True, as_utf8=True)
        return text
