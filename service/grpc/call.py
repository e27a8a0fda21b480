"""grpc's calls as servers' calls."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

from service.access.identity import Metadata
from service.rpc.call import Take
from service.rpc.methods import Method


class _CallerLeft:
    """Within it, a message that cannot be sent is a cancellation: the caller left, and the call
    has yet to learn of it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.aio.InternalError):
            raise asyncio.CancelledError from error


_CALLER_LEFT = _CallerLeft()


class GrpcCall:
    """A ServerCall; see there for what each part is."""

    __slots__ = ("context", "is_multiplexed", "metadata", "method", "service")

    protocol = "grpc"

    def __init__(self, context: grpc.aio.ServicerContext, method: Method) -> None:
        self.context = context
        self.service = method.service
        self.method = method.name
        self.is_multiplexed = method.is_multiplexed
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

    async def read(self) -> bytes | None:
        with _CALLER_LEFT:
            body: Any = await self.context.read()
        return None if body is grpc.aio.EOF else bytes(body)

    def read_through(self, take: Take | None) -> None:
        """grpc hands requests to whoever waits for them alone."""

    async def write(self, message: Message) -> None:
        with _CALLER_LEFT:
            await self.context.write(message)

    def has_room(self) -> bool:
        return False  # grpc does not say

    def write_now(self, data: bytes) -> None:
        raise AssertionError("there is never room at once")

    async def send_headers(self) -> None:
        with _CALLER_LEFT:
            await self.context.send_initial_metadata(())
