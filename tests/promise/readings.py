"""What callers get: read from one service among others, or from the other one alone."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.promise.mixes import CANCEL, RESUME, SLOW, Draw, Question
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

# A caller that takes little ahead of its reads, on a connection of its own.
SMALL_WINDOW = (
    ("grpc.http2.lookahead_bytes", 4096),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
SECONDS = 120.0  # deadline of each call


@dataclass
class Reading:
    """One request's answer, its floats as bits.

    tokens: of each sample by position. refused: the status, where there is no answer.
    is_whole: whether it was read to its end. cached: tokens of its input that were not read.
    """

    tokens: dict[int, dict[int, tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(dict))
    ends: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    echo: list[tuple[Any, ...]] = field(default_factory=list)
    points: list[pb.ResumePoint] = field(default_factory=list)
    usage: tuple[int, int, int] | None = None
    refused: str = ""
    cached: int = 0
    is_whole: bool = False

    def add(self, message: pb.GenerateResponse) -> None:
        for token in message.tokens:
            of_sample = self.tokens[token.sample]
            assert token.position not in of_sample, "reported twice"
            of_sample[token.position] = _token(token)
        self.echo += [_token(token) for token in message.echo]
        self.points += message.resume_points
        for end in message.ends:
            self.ends[end.sample] = (
                end.finish_reason,
                end.output_tokens,
                end.log_probability,
                end.score if end.HasField("score") else None,
            )
        if message.finish_reason:
            usage = message.usage
            self.usage = (usage.input_tokens, usage.output_tokens, usage.unknown_symbols)
            self.cached = usage.cached_tokens
            self.is_whole = True

    @property
    def count(self) -> int:
        return sum(map(len, self.tokens.values()))


def _token(token: pb.Token) -> tuple[Any, ...]:
    top = tuple((t.id, t.text, _bits(t.log_probability)) for t in token.top)
    probability = _bits(token.log_probability) if token.HasField("log_probability") else None
    return token.id, token.text, probability, top


def _bits(value: float) -> bytes:
    return struct.pack("<f", value)


def resumed(request: pb.GenerateRequest, point: pb.ResumePoint, seed: int | None = None) -> Any:
    """The request that goes on from ``point`` of ``request``'s stream."""
    further = pb.GenerateRequest(
        model=request.model,
        resume_token=point.token,
        log_probabilities=True,
        top_log_probabilities=request.top_log_probabilities,
    )
    if seed is not None:
        further.sampling.seed = seed
    return further


def read_alone(target: str, request: pb.GenerateRequest) -> Reading:
    """The answer of a service that does nothing else meanwhile."""
    reading = Reading()
    with grpc.insecure_channel(target) as channel:
        call = unroll_pb2_grpc.UnrollServiceStub(channel).Generate(request, timeout=SECONDS)
        try:
            for message in call:
                reading.add(message)
        except grpc.RpcError as error:
            reading.refused = f"{error.code().name}: {error.details()}"
    return reading


def ask_alone(target: str, question: Question) -> bytes | str:
    """The answer as it is on the wire, or the status of the refusal."""
    with grpc.insecure_channel(target) as channel:
        call = getattr(unroll_pb2_grpc.UnrollServiceStub(channel), question.method)
        try:
            return _wire(call(question.request, timeout=SECONDS))
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


def _wire(answer: Any) -> bytes:
    data: bytes = answer.SerializeToString(deterministic=True)
    return data


class Crowd:
    """Many callers of one service at once. Slow readers go on once release() is called."""

    def __init__(self, target: str, at_once: int) -> None:
        self.target = target
        self._places = asyncio.Semaphore(at_once)
        self._go_on = asyncio.Event()
        self._channel = grpc.aio.insecure_channel(target)

    async def close(self) -> None:
        await self._channel.close()

    def release(self) -> None:
        self._go_on.set()

    async def ask(self, question: Question) -> bytes | str:
        """As ask_alone()."""
        call = getattr(unroll_pb2_grpc.UnrollServiceStub(self._channel), question.method)
        async with self._places:
            try:
                return _wire(await call(question.request, timeout=SECONDS))
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"

    async def read(self, draw: Draw, request: pb.GenerateRequest) -> Reading:
        if draw.fate == SLOW:
            async with grpc.aio.insecure_channel(self.target, SMALL_WINDOW) as channel:
                return await self._read(channel, draw, request)
        async with self._places:
            return await self._read(self._channel, draw, request)

    async def _read(
        self, channel: grpc.aio.Channel, draw: Draw, request: pb.GenerateRequest
    ) -> Reading:
        reading, messages = Reading(), 0
        call = unroll_pb2_grpc.UnrollServiceStub(channel).Generate(request, timeout=SECONDS)
        try:
            async for message in call:
                reading.add(message)
                messages += 1
                if draw.fate == SLOW:
                    await self._go_on.wait()
                if (draw.fate == RESUME and reading.points) or (
                    draw.fate == CANCEL and messages > draw.after
                ):
                    call.cancel()
                    break
        except grpc.aio.AioRpcError as error:
            reading.refused = f"{error.code().name}: {error.details()}"
        return reading
