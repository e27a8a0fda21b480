"""What the parent and a worker ask of each other: JSON over a socket pair, either way at any time.

A message is its length in four bytes and an object: a question (id, ask, with), an answer (id,
answer) or a refusal (id, refused). Domain errors cross as what they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from service.engine import errors
from service.engine.errors import EngineFailed, RequestError, TryLater

log = logging.getLogger(__name__)

_HEAD_BYTES = 4

# What is asked, and what it is asked with; the answer is what JSON can hold. Raises RequestError.
Answer = Callable[[str, dict[str, Any]], Awaitable[Any]]


class ChannelClosed(Exception):
    """The other side has ended, before or after it was asked."""


class Channel:
    """One end; of the event loop that opened it. closed: set once the other side has ended."""

    def __init__(self, answer: Answer) -> None:
        self.closed = asyncio.Event()
        self._answer = answer
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, connection: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=connection)
        self._start(self._read_all())

    def close(self) -> None:
        self._writer.close()

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Raises ChannelClosed, or RequestError as the other side raised it."""
        if self.closed.is_set():
            raise ChannelClosed
        self._last = number = self._last + 1
        self._asked[number] = answered = asyncio.get_running_loop().create_future()
        self._put({"id": number, "ask": what, "with": arguments})
        try:
            return await answered
        finally:
            del self._asked[number]

    # -- what comes ----------------------------------------------------------------------------

    async def _read_all(self) -> None:
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(_HEAD_BYTES))
                self._take(json.loads(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.closed.set()
            self._writer.close()
            for answered in self._asked.values():
                if not answered.done():
                    answered.set_exception(ChannelClosed())

    def _take(self, message: dict[str, Any]) -> None:
        if "ask" in message:
            self._start(self._answer_one(message))
        elif (answered := self._asked.get(message["id"])) and not answered.done():
            if "refused" in message:
                answered.set_exception(_error_of(message["refused"]))
            else:
                answered.set_result(message["answer"])

    async def _answer_one(self, message: dict[str, Any]) -> None:
        number = message["id"]
        try:
            answer = await self._answer(message["ask"], message["with"])
        except RequestError as error:
            self._put({"id": number, "refused": _refusal_of(error)})
        except ChannelClosed:
            self._put({"id": number, "refused": _refusal_of(_failure())})
        except Exception:
            log.exception("what another process asked for failed")
            self._put({"id": number, "refused": _refusal_of(_failure())})
        else:
            self._put({"id": number, "answer": answer})

    def _put(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        if not self.closed.is_set():
            self._writer.write(len(data).to_bytes(_HEAD_BYTES) + data)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _failure() -> EngineFailed:
    return EngineFailed("the server failed; see its log")


def _refusal_of(error: RequestError) -> dict[str, Any]:
    refusal: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, TryLater):
        refusal["retry_after_seconds"] = error.retry_after_seconds
    return refusal


def _error_of(refusal: dict[str, Any]) -> RequestError:
    kind = getattr(errors, refusal["kind"])
    if issubclass(kind, TryLater):
        later: RequestError = kind(refusal["message"], refusal["retry_after_seconds"])
        return later
    made: RequestError = kind(refusal["message"])
    return made
