"""gRPC's calls and messages as admission and observation see them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from service.access.identity import Metadata
from unroll.v1 import unroll_pb2

# Of a request whose text is logged; a longer one is not worth the event loop's time.
_MOST_TEXT_BYTES = 16_384


class GrpcCall:
    """A CallContext; see there for what each part is."""

    __slots__ = ("context", "is_multiplexed", "metadata", "method", "service")

    protocol = "grpc"

    def __init__(
        self,
        context: grpc.aio.ServicerContext,
        service: str,
        method: str,
        is_multiplexed: bool = False,
    ) -> None:
        self.context = context
        self.service = service
        self.method = method
        self.is_multiplexed = is_multiplexed
        self.metadata: Metadata = context.invocation_metadata() or ()

    @property
    def peer(self) -> str:
        peer: str = self.context.peer()
        return peer

    def seconds_left(self) -> float | None:
        left: float | None = self.context.time_remaining()
        return left

    def set_trailer(self, name: str, value: str) -> None:
        self.context.set_trailing_metadata(((name, value),))


class MessageRequest:
    """A message as a RequestInfo."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message: Any = message

    @property
    def model(self) -> str:
        """The name in whichever field the message has it."""
        fields = ("model", "model_name", "name")
        return next((n for n in (getattr(self._message, f, "") for f in fields) if n), "")

    @property
    def id(self) -> str:
        """Of the inference protocol's requests, which have a field for it."""
        own: str = getattr(self._message, "id", "")
        return own

    def text(self) -> str:
        """Without a resume token: whoever reads it could go on with the stream."""
        message = self._message
        if isinstance(message, unroll_pb2.GenerateRequest) and message.resume_token:
            sent, message = message, unroll_pb2.GenerateRequest()
            message.CopyFrom(sent)
            message.resume_token = b"..."
        if (size := message.ByteSize()) > _MOST_TEXT_BYTES:
            return f"({size} bytes)"
        text: str = MessageToString(message, as_one_line=True, as_utf8=True)
        return text


class _CallerLeft:
    """Within it, a message that cannot be sent is a cancellation: the caller left, and the call
    has yet to learn of it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.aio.InternalError):
            raise asyncio.CancelledError from error


CALLER_LEFT = _CallerLeft()
