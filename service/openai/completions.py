"""One request of /v1/completions: a call of Generate for each prompt, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from google.protobuf.message import Message

from service.access.memory_budget import MemoryBudget
from service.asgi.events import DIRECT, Receive, Scope, Send, header
from service.asgi.http import HttpCalls, Read
from service.asgi.request import Body
from service.engine.errors import WrongInput
from service.openai.answers import Answer, GatheredAnswer, StreamedAnswer, head_of
from service.openai.errors import FieldInvalid, refusal_of
from service.openai.fields import CompletionRequest, completion_of
from service.openai.json_body import read_object
from service.openai.sending import patient
from service.rpc.status import OK, Status

_GENERATE = "/unroll.v1.UnrollService/Generate"


class _Failed(Exception):
    """A prompt's call ended with ``status``; those of the others end with it."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class Completions:
    """fingerprint_of: what decides which tokens a seed gives, by model and version; empty for one
    that is not served. budget: counts what answers keep until they are whole. stall_seconds: how
    long a part of one may wait for its caller to read."""

    def __init__(
        self,
        calls: HttpCalls,
        fingerprint_of: Callable[[str, str], str],
        budget: MemoryBudget,
        stall_seconds: float,
    ) -> None:
        self.calls = calls
        self.fingerprint_of = fingerprint_of
        self.budget = budget
        self.stall_seconds = stall_seconds

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Completion(self, scope, receive, send).serve()


class _Completion:
    """The calls of one request. The body is read within the first, once its caller is known."""

    def __init__(self, server: Completions, scope: Scope, receive: Receive, send: Send) -> None:
        self._server = server
        self._scope, self._receive, self._send = scope, receive, send
        self._send_last = patient(send, server.stall_seconds)
        self.answer: Answer | None = None
        self._param: str | None = None
        self._code: str | None = None

    async def serve(self) -> None:
        status = OK
        try:
            try:
                async with asyncio.TaskGroup() as self._others:
                    await self._call(0, self._read)
            except* _Failed as failed:
                status = _first_of(failed)
            await self._finish(status)
        except TimeoutError:
            pass  # nobody reads the answer; it is broken off
        finally:
            if self.answer is not None:
                self.answer.close()

    async def _call(self, number: int, read: Read) -> None:
        """number: of the prompt. Raises _Failed."""
        writer = _PromptWriter(self, number)
        _, status = await self._server.calls.call(
            self._scope,
            self._receive,
            _GENERATE,
            read,
            writer.write,
            "openai",
            write_now=writer,
        )
        if status is not OK:
            raise _Failed(status)

    async def _finish(self, status: Status) -> None:
        if self.answer is None:
            await refusal_of(status, self._param, self._code).send(self._send_last)
        elif status is OK:
            await self.answer.end()
        else:
            await self.answer.fail(refusal_of(status))

    async def _read(self, body: Body) -> Message:
        """The message of the first prompt; the calls of the others begin."""
        encoding = header(self._scope, b"content-encoding")
        content = read_object(await body.whole(b"" if encoding == b"identity" else encoding))
        try:
            request = completion_of(content)
        except FieldInvalid as error:
            self._param, self._code = error.param, error.code
            raise WrongInput(str(error)) from None
        self.answer = self._answer_to(request)
        first, *others = request.messages()
        for number, message in enumerate(others, start=1):
            self._others.create_task(self._call(number, partial(_as_it_is, message)))
        return first

    def _answer_to(self, request: CompletionRequest) -> Answer:
        server, generate = self._server, request.generate
        fingerprint = server.fingerprint_of(generate.model, generate.model_version)
        head = head_of(request, fingerprint)
        if request.is_streamed:
            direct = self._scope["extensions"].get(DIRECT)
            return StreamedAnswer(self._send, self._send_last, direct, request, head)
        return GatheredAnswer(self._send_last, request, head, server.budget)


class _PromptWriter:
    """The messages of one prompt's call, to the answer that is there once the request was read."""

    def __init__(self, completion: _Completion, number: int) -> None:
        self._completion, self._number = completion, number

    @property
    def _answer(self) -> Answer:
        assert self._completion.answer is not None, "messages follow the request"
        return self._completion.answer

    async def write(self, response: Message) -> None:
        await self._answer.write(self._number, response)

    def has_room(self) -> bool:
        return self._answer.has_room()

    def write_now(self, response: Message) -> None:
        self._answer.write_now(self._number, response)


async def _as_it_is(message: Message, body: Body) -> Message:
    return message


def _first_of(failed: ExceptionGroup[_Failed]) -> Status:
    for error in failed.exceptions:
        if isinstance(error, _Failed):
            return error.status
    raise failed
