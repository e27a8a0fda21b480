"""Writes a message, and gives a caller up who reads nothing."""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.message import Message

from service.engine.errors import ReaderStalled


async def write(context: grpc.aio.ServicerContext, response: Message, stall_seconds: float) -> None:
    """stall_seconds: how long the message may wait for its caller to read.

    Raises ReaderStalled.
    """
    try:
        async with asyncio.timeout(stall_seconds):
            await context.write(response)
    except TimeoutError as error:
        raise ReaderStalled(
            f"nothing was read for {stall_seconds:g} s, so the stream was given up; "
            "send the request again, or go on from its last resume token"
        ) from error
