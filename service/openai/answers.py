"""Answers to a completion request: events as tokens come, or one object at the end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from service.access.memory_budget import ANSWERS, MemoryBudget, Reservation
from service.asgi.events import Direct, Headers, Send
from service.openai.choices import Choice, LogProbabilities, Usage, quoted
from service.openai.errors import Refusal
from service.openai.fields import CompletionRequest
from service.openai.sending import send_json
from unroll.v1 import unroll_pb2 as pb

_EVENT_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # for proxies that would gather events
]
# What is kept of an answer, for each byte of its messages; reserved so many at a time.
_KEPT_FACTOR, _KEPT_STEP = 8, 65_536


def head_of(request: CompletionRequest, fingerprint: str) -> str:
    """What every object of one answer begins with, without the bracket that ends it."""
    return (
        f'{{"id":"cmpl-{secrets.token_urlsafe(18)}","object":"text_completion"'
        f',"created":{int(time.time())},"model":{quoted(request.model)}'
        f',"system_fingerprint":{quoted(fingerprint)}'
    )


class Answer(Protocol):
    """end() and fail() raise TimeoutError where nobody reads them."""

    async def write(self, number: int, response: pb.GenerateResponse) -> None:
        """A message of the call of prompt ``number``."""

    def has_room(self) -> bool:
        """Whether write_now() may be called instead."""

    def write_now(self, number: int, response: pb.GenerateResponse) -> None:
        """As write(), which would not wait."""

    async def end(self) -> None:
        """Every call has ended well."""

    async def fail(self, refusal: Refusal) -> None:
        """One has not, and the others were ended."""

    def close(self) -> None:
        """Whatever happened."""


class GatheredAnswer:
    """All of it, kept until it is whole. budget: counts what is kept; write() raises Overloaded."""

    def __init__(
        self, send: Send, request: CompletionRequest, head: str, budget: MemoryBudget
    ) -> None:
        self._send, self._request, self._head = send, request, head
        self._choices: dict[int, Choice] = {}
        self._usage = Usage()
        self._budget = budget
        self._held: list[Reservation] = []
        self._left = 0  # of what is reserved

    async def write(self, number: int, response: pb.GenerateResponse) -> None:
        # The prompt is kept with every choice.
        copies = self._request.choices if response.echo else 1
        self._hold(_KEPT_FACTOR * copies * response.ByteSize())
        first = number * self._request.choices
        _spread(response, self._request.choices, lambda sample: self._choice(first + sample))
        if response.HasField("usage"):
            self._usage.add(response.usage)

    def has_room(self) -> bool:
        return False  # what is kept is counted to the caller, whose task alone knows who that is

    def write_now(self, number: int, response: pb.GenerateResponse) -> None:
        raise AssertionError("there is no room")

    def _hold(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            step = _KEPT_STEP - self._left
            self._held.append(self._budget.reserve(ANSWERS, step))
            self._left += step

    def _choice(self, index: int) -> Choice:
        choice = self._choices.get(index)
        if choice is None:
            most = self._request.logprobs
            logprobs = None if most is None else LogProbabilities(most)
            choice = self._choices[index] = Choice(index, logprobs)
        return choice

    async def end(self) -> None:
        choices = ",".join(choice.json() for _, choice in sorted(self._choices.items()))
        body = f'{self._head},"choices":[{choices}],"usage":{self._usage.json()}}}'
        await send_json(self._send, 200, body.encode())

    async def fail(self, refusal: Refusal) -> None:
        await refusal.send(self._send)

    def close(self) -> None:
        for held in self._held:
            held.release()


class StreamedAnswer:
    """Server-sent events, as WHATWG's HTML Living Standard has them (section 9.2).

    A message becomes one event for each choice that it brings something of.

    send: for messages, within their call. send_last: for what follows. direct: of the server, where
    it has that.
    """

    def __init__(
        self,
        send: Send,
        send_last: Send,
        direct: Direct | None,
        request: CompletionRequest,
        head: str,
    ) -> None:
        self._send, self._send_last, self._direct = send, send_last, direct
        self._request, self._head = request, head
        self._usage = Usage()
        # With the usage to come at the end, every other event says that it has none.
        self._after = ',"usage":null}\n\n' if request.includes_usage else "}\n\n"
        self._before = f'data: {head},"choices":['
        # Around the text of an event that brings nothing else.
        self._plain_end = f',"logprobs":null,"finish_reason":null}}]{self._after}'
        count = request.choices * max(1, len(request.prompts))
        self._plain_begin = [f'{self._before}{{"index":{i},"text":' for i in range(count)]
        self._has_logprobs = request.logprobs is not None
        self._offsets: dict[int, int] = {}  # by choice: where its next token begins
        self._has_begun = False
        # The calls of several prompts write side by side, and one must wait for another.
        self._turn = asyncio.Lock() if len(request.prompts) > 1 else None

    async def write(self, number: int, response: pb.GenerateResponse) -> None:
        if self.has_room():
            self.write_now(number, response)
            return
        body = self._body(number, response)
        if self._turn is None:
            await self._write(body)
            return
        async with self._turn:
            await self._write(body)

    def has_room(self) -> bool:
        return (
            self._has_begun
            and self._direct is not None
            and self._direct.has_room()
            and (self._turn is None or not self._turn.locked())
        )

    def write_now(self, number: int, response: pb.GenerateResponse) -> None:
        assert self._direct is not None, "there is room"
        self._direct.send_now(self._body(number, response))

    async def end(self) -> None:
        usage = ""
        if self._request.includes_usage:
            usage = f'data: {self._head},"choices":[],"usage":{self._usage.json()}}}\n\n'
        await self._finish(f"{usage}data: [DONE]\n\n".encode())

    async def fail(self, refusal: Refusal) -> None:
        if self._has_begun:
            await self._finish(b"data: " + refusal.json() + b"\n\n")
        else:
            await refusal.send(self._send_last)

    def close(self) -> None:
        """Nothing is kept."""

    async def _write(self, body: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": _EVENT_HEADERS}
            )
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _finish(self, body: bytes) -> None:
        await self._send_last({"type": "http.response.body", "body": body, "more_body": False})

    def _body(self, number: int, response: pb.GenerateResponse) -> bytes:
        return self._events(number * self._request.choices, response).encode()

    def _events(self, first: int, response: pb.GenerateResponse) -> str:
        """first: the index of the call's first choice."""
        tokens = response.tokens
        if len(tokens) == 1 and not self._has_logprobs and _brings_tokens_alone(response):
            token: pb.Token = tokens[0]
            index = first + token.sample
            if index < len(self._plain_begin):  # a resumed sample keeps its number
                return self._plain_begin[index] + quoted(token.text) + self._plain_end
        return self._other_events(first, response)

    def _other_events(self, first: int, response: pb.GenerateResponse) -> str:
        choices: dict[int, Choice] = {}
        logprobs: dict[int, LogProbabilities] = {}

        def choice_of(sample: int) -> Choice:
            index = first + sample
            choice = choices.get(index)
            if choice is None:
                if self._has_logprobs:
                    most = self._request.logprobs or 0
                    logprobs[index] = LogProbabilities(most, self._offsets.get(index, 0))
                choice = choices[index] = Choice(index, logprobs.get(index))
            return choice

        _spread(response, self._request.choices, choice_of)
        if response.HasField("usage"):
            self._usage.add(response.usage)
        for index, each in logprobs.items():
            self._offsets[index] = each.offset
        return "".join(f"{self._before}{each.json()}]{self._after}" for each in choices.values())


def _brings_tokens_alone(response: pb.GenerateResponse) -> bool:
    return not (response.ends or response.resume_points or response.finish_reason or response.echo)


def _spread(
    response: pb.GenerateResponse, choices: int, choice_of: Callable[[int], Choice]
) -> None:
    """Give everything in ``response`` to the choice that it is of.

    choice_of: the Choice of a sample. The prompt's own tokens are of all ``choices``.
    """
    for token in response.echo:
        for sample in range(choices):
            choice_of(sample).add(token)
    for token in response.tokens:
        choice_of(token.sample).add(token)
    for end in response.ends:
        choice_of(end.sample).end(end)
    for point in response.resume_points:
        choice_of(point.sample).resume(point)
