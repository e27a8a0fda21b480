"""The client's side of a stream, as cheap as it can be: messages are parsed after a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from bench.medians import Seconds
from bench.settings import TEMPERATURE, TOP_P, prompt_of
from unroll.v1 import unroll_pb2 as pb

SERVICE = "/" + pb.DESCRIPTOR.services_by_name["UnrollService"].full_name
_FIELDS = pb.GenerateRequest.DESCRIPTOR.fields_by_name
_SAYS_TOKENS_PER_MESSAGE, _SAYS_NO_CACHE = "tokens_per_message" in _FIELDS, "no_cache" in _FIELDS


@dataclass
class Reading:
    """What a caller saw of one stream; times in seconds of time.perf_counter."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)

    @property
    def first_token_seconds(self) -> float:
        return self.arrivals[0] - self.sent

    def token_arrivals(self) -> list[tuple[float, int]]:
        """(when, tokens) of each message that holds any."""
        counts = (len(pb.GenerateResponse.FromString(raw).tokens) for raw in self.messages)
        return [(at, n) for at, n in zip(self.arrivals, counts, strict=True) if n]


class Caller:
    """One channel to a server; messages stay bytes."""

    def __init__(self, target: str, options: Sequence[tuple[str, Any]] = ()) -> None:
        self.channel = grpc.aio.insecure_channel(target, options)
        self.generate = self.channel.unary_stream(
            f"{SERVICE}/Generate", request_serializer=pb.GenerateRequest.SerializeToString
        )
        self.classify = self.channel.unary_unary(
            f"{SERVICE}/Classify", request_serializer=pb.ClassifyRequest.SerializeToString
        )

    async def read(
        self,
        request: pb.GenerateRequest,
        began: Callable[[], None] | None = None,
        reading: Reading | None = None,
    ) -> Reading:
        """Read a stream to its end, into ``reading`` if there is one.

        began: called when the first message has come.
        """
        reading = reading or Reading(time.perf_counter())
        call = self.generate(request)
        while (raw := await call.read()) is not grpc.aio.EOF:
            reading.arrivals.append(time.perf_counter())
            reading.messages.append(raw)
            if began is not None:
                began()
                began = None
        return reading

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.channel.close()


def make_request(
    model: str,
    seed: int,
    tokens: int,
    prompt: str | None = None,
    one_a_message: bool = False,
    no_cache: bool = True,
) -> pb.GenerateRequest:
    """prompt: that of the seed unless one is given. one_a_message: one token a message, where the
    contract lets a caller choose. no_cache: the prompt is read in full, however often it is sent.
    """
    sampling = pb.Sampling(temperature=TEMPERATURE, top_k=0, top_p=TOP_P, seed=seed)
    prompt = prompt_of(seed) if prompt is None else prompt
    request = pb.GenerateRequest(model=model, prompt=prompt, max_tokens=tokens, sampling=sampling)
    if no_cache and _SAYS_NO_CACHE:
        request.no_cache = True
    if one_a_message and _SAYS_TOKENS_PER_MESSAGE:
        request.tokens_per_message = 1
    return request


def inter_token_seconds(
    arrivals: Sequence[tuple[float, int]], begin: float = -np.inf, end: float = np.inf
) -> Seconds:
    """The wait for each token after the first message that came from ``begin`` to ``end``.

    A message of k tokens makes k waits, each a k-th of the time since the message before.
    """
    times = np.array([at for at, _ in arrivals])
    counts = np.array([count for _, count in arrivals], int)
    waits, counts, times = np.diff(times), counts[1:], times[1:]
    inside = (times >= begin) & (times <= end)
    return np.repeat(waits[inside] / counts[inside], counts[inside])
