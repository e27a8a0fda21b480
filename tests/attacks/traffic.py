"""What attacks send: calls by their bytes, many at once, and HTTP/2 by hand for what stays unread.

``Raw`` is a connection whose caller says how much it reads: with a window of 0, answers never
leave the service. Everything goes to one service on this machine, and ends with its ``with``.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.attacks.harness import Service

UNROLL = "/unroll.v1.UnrollService"
INFERENCE = "/inference.GRPCInferenceService"
HEALTH = "/grpc.health.v1.Health"
LOAD = f"{INFERENCE}/RepositoryModelLoad"
UNLOAD = f"{INFERENCE}/RepositoryModelUnload"

_LARGEST = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class Outcome:
    """How a call ended. retry_after: seconds of its RetryInfo; None for none. answer: bytes."""

    status: str
    details: str = ""
    retry_after: float | None = None
    answer: bytes = b""


def to_outcome(error: grpc.RpcError) -> Outcome:
    retry_after = None
    if status := rpc_status.from_call(error):
        info = error_details_pb2.RetryInfo()
        for detail in status.details:
            if detail.Unpack(info):
                retry_after = info.retry_delay.ToTimedelta().total_seconds()
    return Outcome(error.code().name, error.details() or "", retry_after)


def is_refusal_with_a_delay(outcome: Outcome) -> bool:
    return outcome.status == "RESOURCE_EXHAUSTED" and outcome.retry_after is not None


def statuses(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(Counter(outcome.status for outcome in outcomes))


def opened(service: Service) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(service.target, _LARGEST)


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


async def call(
    channel: grpc.aio.Channel,
    method: str,
    request: Message | bytes,
    *,
    token: str = "",
    timeout: float = 60.0,
    zipped: bool = False,
    streams: bool = False,
) -> Outcome:
    """Call ``method`` (its whole path) with one message. streams: whether it answers with many."""
    make = channel.unary_stream if streams else channel.unary_unary
    data = request if isinstance(request, bytes) else request.SerializeToString()
    call = make(method)(
        data,
        timeout=timeout,
        metadata=bearing(token),
        compression=grpc.Compression.Gzip if zipped else None,
    )
    try:
        if not streams:
            return Outcome("OK", answer=await call)
        parts = [part async for part in call]
        return Outcome("OK", answer=b"".join(parts))
    except grpc.aio.AioRpcError as error:
        return to_outcome(error)


async def at_once(
    service: Service,
    calls: int,
    each: Callable[[grpc.aio.Channel, int], Awaitable[Outcome]],
    *,
    channels: int = 1,
    side_by_side: int | None = None,
) -> list[Outcome]:
    """``each`` call, all begun before any is awaited, spread over so many connections.

    side_by_side: so many under way, in the place of all.
    """
    room = asyncio.Semaphore(side_by_side or calls)
    opens = [opened(service) for _ in range(channels)]

    async def one(number: int) -> Outcome:
        async with room:
            return await each(opens[number % channels], number)

    try:
        return list(await asyncio.gather(*(one(number) for number in range(calls))))
    finally:
        await asyncio.gather(*(channel.close() for channel in opens))


@dataclass
class Answered:
    """What came of one call of a Raw connection. length: of its data, framed."""

    headers: dict[str, str] = field(default_factory=dict)
    length: int = 0
    data: bytes = field(default=b"", repr=False)
    ended: bool = False

    @property
    def status(self) -> str:
        """Its number; empty while there is none."""
        return self.headers.get("grpc-status", "")


class Raw:
    """A caller that speaks HTTP/2 by hand; not thread-safe.

    window: bytes that the service may send on each call before a window update, which it
    never is unless ``reads``.
    """

    def __init__(
        self, service: Service, *, window: int = 0, reads: bool = False, token: str = ""
    ) -> None:
        self.answers: dict[int, Answered] = {}
        self.is_closed = False
        self._reads, self._token = reads, token
        self._socket = socket.create_connection(("127.0.0.1", service.port), 5)
        # As every HTTP/2 client does: parts of a message would wait for acknowledgements else.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_inbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._flush()
        # Calls that begin before the window is agreed on would have the usual one.
        self._agreed = 0
        self.pump(5, lambda: self._agreed == 2)

    def call(
        self,
        method: str,
        *requests: Message | bytes,
        zipped: bool = False,
        end: bool = True,
        metadata: Sequence[tuple[str, str]] = (),
        seconds: float = 20.0,
    ) -> int:
        """Begin a call and send its requests, as the service takes them; its number.

        end: whether it says that no further request follows.
        """
        number = self._h2.get_next_available_stream_id()
        self.answers[number] = Answered()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", method),
            (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc"),
            *bearing(self._token), *metadata,
        ]  # fmt: skip
        if zipped:
            headers.append(("grpc-encoding", "gzip"))
        self._h2.send_headers(number, headers, end_stream=end and not requests)
        for place, request in enumerate(requests, start=1):
            data = request if isinstance(request, bytes) else request.SerializeToString()
            self._send(number, framed(data, zipped), end and place == len(requests), seconds)
        self._flush()
        return number

    def send(self, number: int, request: Message, *, end: bool = False) -> None:
        self._send(number, framed(request.SerializeToString()), end, 20.0)
        self._flush()

    def _send(self, number: int, data: bytes, end: bool, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        view = memoryview(data)
        while len(view) and time.monotonic() < deadline and not self.is_closed:
            if self.answers[number].ended:
                return
            window = self._window(number)
            if not window:
                self.pump(0.1, lambda: self._window(number) > 0)
                continue
            part = view[: min(window, self._h2.max_outbound_frame_size)]
            view = view[len(part) :]
            self._h2.send_data(number, part.tobytes(), end_stream=end and not len(view))
            self._flush()

    def _window(self, number: int) -> int:
        """What of that call may be sent now. 0 for one that has ended."""
        if self.answers[number].ended:
            return 0
        return int(self._h2.local_flow_control_window(number))

    def reset(self, number: int) -> None:
        self._h2.reset_stream(number)
        self._flush()

    def pump(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Take what comes for so long, or ``until`` it holds; whether it does."""
        deadline = time.monotonic() + seconds
        while not until():
            left = deadline - time.monotonic()
            if left <= 0 or self.is_closed:
                return until()
            self._socket.settimeout(min(left, 0.1))
            try:
                received = self._socket.recv(1 << 20)
            except TimeoutError:
                continue
            except OSError:
                received = b""
            try:
                events = self._h2.receive_data(received) if received else None
            except h2.exceptions.ProtocolError:  # what follows a GOAWAY is none for h2
                events = None
            self.is_closed |= events is None
            for event in events or ():
                self._take(event)
            self._flush()
        return True

    def all_ended(self) -> bool:
        return all(answer.ended for answer in self.answers.values())

    def _take(self, event: Any) -> None:
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.ConnectionTerminated):
            self.is_closed = True
        if isinstance(event, h2.events.SettingsAcknowledged):
            self._agreed += 1
        if answer is None:
            return
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            answer.headers |= dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.length += len(event.data)
            answer.data += event.data
            if self._reads:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            answer.ended = True

    def _flush(self) -> None:
        self._socket.settimeout(5)
        try:
            self._socket.sendall(self._h2.data_to_send())
        except OSError:
            self.is_closed = True

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def framed(data: bytes, zipped: bool = False) -> bytes:
    """As gRPC puts a message into a body."""
    data = gzip.compress(data) if zipped else data
    return struct.pack(">BI", zipped, len(data)) + data
