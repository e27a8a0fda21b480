"""Callers that send frames in real time, as cheap as they can be: HTTP/2 by hand, in one thread.

A client of gRPC takes as much of a core for a frame as the server does; this one takes a tenth, so
that a thousand streams can be sent from beside the server they are sent to. RFC 9113 for frames,
RFC 7541 for the headers (literals without indexing alone).
"""

from __future__ import annotations

import heapq
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.frame_model import FRAME, NAME
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.v1 import unroll_pb2 as pb

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 1, 1, 4, 8
_INITIAL_WINDOW = 4
_WIDE = 2**31 - 1
_STREAMS_OF_CONNECTION = 50
_HEAD = struct.Struct(">HBBBI")


@dataclass
class Sent:
    """What became of the frames: seconds from each one's due time to its answer.

    late: frames that were sent more than a millisecond after they were due, because the caller
    itself could not keep up. failed: streams that the server ended. refused: frames whose answer
    was an error, of which the last is kept. cpu_seconds: of the caller; server_cpu_seconds: of the
    server, from the first frame to the last answer.
    """

    latencies: list[float] = field(default_factory=list)
    sent: int = 0
    answered: int = 0
    late: int = 0
    failed: int = 0
    refused: int = 0
    refusal: str = ""
    cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0


class FrameRefused(Exception):
    """The server answered one frame with an error, and goes on."""


@dataclass(frozen=True)
class FrameCall:
    """How frames are sent and answered, by a method of gRPC that streams both ways.

    start: messages of a stream before its frames. frame: the message of a frame's values in the
    stream of that number. answers: how many frames a message answers.
    """

    path: str
    start: tuple[bytes, ...]
    frame: Callable[[int, bytes], bytes]
    answers: Callable[[bytes], int]


def _step_frame(stream: int, values: bytes) -> bytes:
    frame = pb.StepFrame(inputs=[pb.Tensor(raw=values)])
    data: bytes = pb.StreamStepRequest(frame=frame).SerializeToString()
    return data


def _step_answers(data: bytes) -> int:
    return len(pb.StreamStepResponse.FromString(data).results)


def _infer_frame(stream: int, values: bytes) -> bytes:
    """As bench/peers/triton.py has it."""
    tensor = inference_pb.ModelInferRequest.InferInputTensor
    request = inference_pb.ModelInferRequest(
        model_name=NAME,
        inputs=[
            tensor(name="stream", datatype="INT64", shape=[1, 1]),
            tensor(name="frame", datatype="FP32", shape=[1, FRAME]),
        ],
        raw_input_contents=[stream.to_bytes(8, "little"), values],
    )
    data: bytes = request.SerializeToString()
    return data


def _infer_answers(data: bytes) -> int:
    response = inference_pb.ModelStreamInferResponse.FromString(data)
    if response.error_message:
        raise FrameRefused(response.error_message)
    return 1


STREAM_STEP = FrameCall(
    f"/{pb.DESCRIPTOR.services_by_name['UnrollService'].full_name}/StreamStep",
    (pb.StreamStepRequest(start=pb.StreamStepStart(model=NAME)).SerializeToString(),),
    _step_frame,
    _step_answers,
)
MODEL_STREAM_INFER = FrameCall(
    "/inference.GRPCInferenceService/ModelStreamInfer", (), _infer_frame, _infer_answers
)


@dataclass
class _Stream:
    due: list[float] = field(default_factory=list)  # of frames that have no answer yet
    next: int = 0
    rest: bytes = b""
    window: int = 65_535
    held: deque[bytes] = field(default_factory=deque)  # until the server lets it be sent


class _Connection:
    def __init__(self, target: str, call: FrameCall) -> None:
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.streams: dict[int, _Stream] = {}
        self.window, self.initial = 65_535, 65_535
        self._in = b""
        self._out = bytearray(_PREFACE)
        self._call = call
        self._headers = _headers(call.path, target)
        self._frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, _WIDE))
        self._frame(_WINDOW, 0, 0, struct.pack(">I", _WIDE - 65_535))

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._out += _HEAD.pack(size >> 8, size & 255, kind, flags, stream) + payload

    def open(self) -> int:
        number = 2 * len(self.streams) + 1
        self.streams[number] = _Stream(window=self.initial)
        self._frame(_HEADERS, _END_HEADERS, number, self._headers)
        for message in self._call.start:
            self.send(number, _message(message))
        return number

    def send(self, number: int, message: bytes) -> None:
        self.streams[number].held.append(message)
        self._send_held(number)

    def _send_held(self, number: int) -> None:
        stream = self.streams[number]
        while stream.held and min(stream.window, self.window) >= len(stream.held[0]):
            message = stream.held.popleft()
            stream.window -= len(message)
            self.window -= len(message)
            self._frame(_DATA, 0, number, message)

    def close(self, number: int) -> None:
        self._frame(_DATA, _END_STREAM, number, b"")

    def flush(self) -> None:
        if self._out:
            self.socket.sendall(self._out)
            self._out.clear()

    def read(self, sent: Sent) -> None:
        """What has come; the time of each answer is now."""
        data = self._in + self.socket.recv(1 << 18)
        now, place = time.perf_counter(), 0
        while len(data) - place >= 9:
            high, low, kind, flags, number = _HEAD.unpack_from(data, place)
            size = high << 8 | low
            if len(data) - place < 9 + size:
                break
            payload = data[place + 9 : place + 9 + size]
            place += 9 + size
            self._take(kind, flags, number, payload, now, sent)
        self._in = data[place:]

    def _take(
        self, kind: int, flags: int, number: int, payload: bytes, now: float, sent: Sent
    ) -> None:
        if kind == _DATA:
            self._take_data(self.streams[number], payload, now, sent)
        elif kind == _WINDOW:
            (more,) = struct.unpack(">I", payload)
            if number:
                self.streams[number].window += more
                self._send_held(number)
            else:
                self.window += more
                for held in self.streams:
                    self._send_held(held)
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == _INITIAL_WINDOW:
                    for stream in self.streams.values():
                        stream.window += value - self.initial
                    self.initial = value
            self._frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, 0, payload)
        elif kind in (_RESET, _AWAY):
            sent.failed += 1
        elif kind == _HEADERS and flags & _END_STREAM:
            stream = self.streams[number]
            sent.failed += stream.next < len(stream.due)

    def _take_data(self, stream: _Stream, payload: bytes, now: float, sent: Sent) -> None:
        data = stream.rest + payload
        place = 0
        while len(data) - place >= 5:
            size = int.from_bytes(data[place + 1 : place + 5])
            if len(data) - place < 5 + size:
                break
            message = data[place + 5 : place + 5 + size]
            place += 5 + size
            try:
                answers = self._call.answers(message)
            except FrameRefused as refused:
                sent.refused, sent.refusal = sent.refused + 1, str(refused)
                stream.next += 1
                continue
            for _ in range(answers):
                sent.latencies.append(now - stream.due[stream.next])
                stream.next += 1
                sent.answered += 1
        stream.rest = data[place:]


def send_frames(
    target: str,
    streams: int,
    seconds: float,
    period: float,
    frames: Sequence[bytes],
    server_cpu_seconds: Callable[[], float] = lambda: 0.0,
    call: FrameCall = STREAM_STEP,
) -> Sent:
    """``streams`` streams that send a frame each ``period``, out of step with one another.

    frames: the values, taken in turn. server_cpu_seconds: of the server so far. Raises RuntimeError
    where frames were refused and none was answered.
    """
    messages = [
        [_message(call.frame(number, frame)) for frame in frames] for number in range(streams)
    ]
    connections = [_Connection(target, call) for _ in range(-(-streams // _STREAMS_OF_CONNECTION))]
    chosen = selectors.DefaultSelector()
    for connection in connections:
        chosen.register(connection.socket, selectors.EVENT_READ, connection)
    numbers: list[tuple[_Connection, int]] = []
    for number in range(streams):
        connection = connections[number // _STREAMS_OF_CONNECTION]
        numbers.append((connection, connection.open()))
    sent = Sent()
    _wait(chosen, connections, sent, time.perf_counter() + 0.5 + streams / 500)
    server_cpu = server_cpu_seconds()
    began, cpu = time.perf_counter(), time.process_time()
    due = [(began + period * n / streams, n) for n in range(streams)]
    end = began + seconds
    while due and due[0][0] < end:
        now = time.perf_counter()
        while due[0][0] <= now:
            at, number = due[0]
            heapq.heapreplace(due, (at + period, number))
            connection, stream = numbers[number]
            connection.streams[stream].due.append(at)
            connection.send(stream, messages[number][sent.sent % len(frames)])
            sent.sent += 1
            sent.late += now - at > 1e-3
        _wait(chosen, connections, sent, due[0][0], once=True)
    sent.cpu_seconds = time.process_time() - cpu
    last = time.perf_counter() + 2.0
    while sent.answered + sent.refused < sent.sent and time.perf_counter() < last:
        _wait(chosen, connections, sent, time.perf_counter() + 0.05, once=True)
    sent.server_cpu_seconds = server_cpu_seconds() - server_cpu
    for connection, stream in numbers:
        connection.close(stream)
    _wait(chosen, connections, sent, time.perf_counter() + 0.2)
    for connection in connections:
        connection.socket.close()
    if sent.refused and not sent.answered:
        raise RuntimeError(f"every frame was refused: {sent.refusal}")
    return sent


def _wait(
    chosen: selectors.BaseSelector,
    connections: Sequence[_Connection],
    sent: Sent,
    until: float,
    once: bool = False,
) -> None:
    while True:
        for connection in connections:
            connection.flush()
        left = until - time.perf_counter()
        for key, _ in chosen.select(max(0.0, left)):
            key.data.read(sent)
        if once or time.perf_counter() >= until:
            return


def _message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


def _headers(path: str, authority: str) -> bytes:
    pairs = (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", authority),
        ("te", "trailers"), ("content-type", "application/grpc"),
    )  # fmt: skip
    return b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in pairs
    )
