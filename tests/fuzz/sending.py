"""Sends drawn calls as bytes, many at once, and counts how they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

import grpc

from tests.fuzz.faults import BROKEN, CANCELLED_BY_US, SECONDS, Answer, fault_of
from tests.fuzz.methods import Method

# What grpc.aio's own client says in place of a status that comes while it writes. Sent again
# with some wait after each message, the call shows its status.
_WRITTEN_TOO_LATE = ("INTERNAL", "Internal error from Core")
_WAITS = (0.0, 0.05, 0.5, 2.0)
# After which a call is left that is left at once: some are being served by then.
_MOMENT = 0.002
_CHANNELS = 4


class Sendable(Protocol):
    """What is sent, and how many answers are read before it is cancelled (None: all)."""

    @property
    def method(self) -> Method: ...

    @property
    def messages(self) -> tuple[bytes, ...]: ...

    @property
    def reads(self) -> int | None: ...

    @property
    def wants_status(self) -> bool: ...


async def send(channel: grpc.aio.Channel, call: Sendable) -> Answer:
    """Send it and read its answers; what takes too long ends as DEADLINE_EXCEEDED."""
    for wait_seconds in _WAITS:
        answer = await _send(channel, call, wait_seconds)
        if (answer.status, answer.details) != _WRITTEN_TOO_LATE:
            break
    return answer


async def _send(channel: grpc.aio.Channel, call: Sendable, wait_seconds: float) -> Answer:
    """wait_seconds: seconds after each message in which the call may end."""
    messages: list[bytes] = []
    sending = None
    try:
        under_way, sending = _open(channel, call, wait_seconds)
        if call.reads == 0:
            await asyncio.sleep(_MOMENT)
            under_way.cancel()
            return Answer(CANCELLED_BY_US, "", messages)
        if not call.method.gives_stream:
            messages.append(await under_way)
        else:
            while (message := await under_way.read()) is not grpc.aio.EOF:
                messages.append(message)
                if len(messages) == call.reads:
                    under_way.cancel()
                    return Answer(CANCELLED_BY_US, "", messages)
    except grpc.aio.AioRpcError as error:
        return Answer(error.code().name, error.details() or "", messages)
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])
    return Answer("OK", "", messages)


def _open(
    channel: grpc.aio.Channel, call: Sendable, wait_seconds: float
) -> tuple[Any, asyncio.Task[None] | None]:
    path = call.method.path
    if not call.method.gives_stream:
        return channel.unary_unary(path)(call.messages[0], timeout=SECONDS), None
    if not call.method.takes_stream:
        return channel.unary_stream(path)(call.messages[0], timeout=SECONDS), None
    header = (("triton_grpc_error", "true"),) if call.wants_status else ()
    under_way = channel.stream_stream(path)(timeout=SECONDS, metadata=header)
    return under_way, asyncio.ensure_future(_write_all(under_way, call.messages, wait_seconds))


async def _write_all(under_way: Any, messages: Iterable[bytes], wait_seconds: float) -> None:
    has_ended = asyncio.Event()
    under_way.add_done_callback(lambda _: has_ended.set())
    # A call that ends while it is written to says why where it is read.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in messages:
            await under_way.write(message)
            if wait_seconds:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(has_ended.wait(), wait_seconds)
        await under_way.done_writing()


After = Callable[[grpc.aio.Channel, Any, Answer], Awaitable[None]]


class Sender:
    """Sends calls over a few connections and keeps what should not have happened.

    at_once: calls under way at any time. after: awaited after each call, with its channel.
    is_broken: the server is gone; the calls that were under way are among the findings.
    """

    def __init__(self, target: str, at_once: int, after: After) -> None:
        self.target = target
        self.at_once = at_once
        self.after = after
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.mutated = self.readable = self.calls = 0
        self.findings: list[str] = []
        self.is_broken = False

    async def send_all(self, calls: Iterable[Any]) -> None:
        """Until there are no more calls, or the server is gone."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        waiting = iter(calls)
        async with contextlib.AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(self.target, options))
                for _ in range(_CHANNELS)
            ]
            callers = (
                self._caller(channels[number % _CHANNELS], waiting)
                for number in range(self.at_once)
            )
            await asyncio.gather(*callers)

    async def _caller(self, channel: grpc.aio.Channel, waiting: Iterator[Any]) -> None:
        for call in waiting:
            answer = await send(channel, call)
            self._note(call, answer)
            if self.is_broken:
                return
            await self.after(channel, call, answer)

    def _note(self, call: Any, answer: Answer) -> None:
        self.calls += 1
        self.mutated += call.mutated
        self.readable += call.readable
        self.statuses[call.method.name, answer.status] += 1
        self.is_broken |= answer.status == BROKEN
        if fault := fault_of(call.method, len(call.messages), answer):
            self.findings.append(f"call {call.number}, {fault}\n  {call}")
