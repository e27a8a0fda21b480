"""Texts of a command: those given as arguments, or one a line, answered in order."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TextIO, TypeVar

from unroll.output import note
from unroll.types import RequestFailed

Answered = TypeVar("Answered")
# Of the caller, the model or the server: no other line would fare better.
_OF_EVERY_LINE = (
    "UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNIMPLEMENTED",
    "CANCELLED",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """number: from 1; None for a text that was an argument."""

    text: str
    number: int | None = None


class LinesUnreadable(Exception):
    """The file of lines cannot be opened or read."""


def read(name: str) -> Iterator[Line]:
    """The lines of a file, or of standard input for ``-``, without their ends.

    Raises LinesUnreadable.
    """
    try:
        with _opened(name) as file:
            for number, text in enumerate(file, 1):
                yield Line(text.removesuffix("\n"), number)
    except OSError as error:
        raise LinesUnreadable(f"--lines {name}: {error.strerror}") from error


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """Bytes that are no UTF-8 come as surrogates, so that their own line fails alone."""
    if name != "-":
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            yield file
        return
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):  # replaced by something without one
        yield sys.stdin
        return
    # Not sys.stdin itself: a thread that waits in it would be waited for when the process ends.
    yield open(descriptor, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115


class Texts:
    """texts: of the arguments. lines: name of the file to read instead, or None.

    failed: number of lines that were not answered.
    """

    def __init__(self, texts: Sequence[str], lines: str | None, concurrency: int) -> None:
        self._texts = [sys.stdin.read() if text == "-" else text for text in texts]
        self._lines = lines
        self._concurrency = concurrency
        self.failed = 0

    def answers(
        self, call: Callable[[list[str]], Sequence[Answered]]
    ) -> Iterator[tuple[Line, Answered]]:
        """Each text with its answer, in order. call: answers several texts.

        Arguments go into one call, each line in a call of its own. A line that fails is
        reported on standard error, and the next ones go on, unless all would fail alike: then
        RequestFailed is raised.
        """
        if self._lines is None:
            answers = call(self._texts)
            yield from zip(map(Line, self._texts), answers, strict=True)
            return
        pending = _InOrder(read(self._lines), lambda line: call([line.text])[0], self._concurrency)
        with pending:
            for line, answer in pending:
                try:
                    yield line, answer.result()
                except (RequestFailed, ValueError) as error:
                    if isinstance(error, RequestFailed) and error.code in _OF_EVERY_LINE:
                        raise
                    self.failed += 1
                    note(f"line {line.number}: {error}")


class _InOrder(Generic[Answered]):
    """Lines with their answers to come, in the order of the lines.

    At most ``concurrency`` calls are under way, and as many lines wait. Lines are read on a thread
    of their own, so that an answer is there while the next line is awaited.
    """

    def __init__(
        self, lines: Iterable[Line], call: Callable[[Line], Answered], concurrency: int
    ) -> None:
        self._lines = lines
        self._call = call
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="lines")
        self._free = threading.Semaphore(2 * concurrency)
        self._pending: queue.SimpleQueue[tuple[Line, Future[Answered]] | Exception | None] = (
            queue.SimpleQueue()
        )

    def __enter__(self) -> None:
        # A daemon: nobody waits for a line that may never come.
        threading.Thread(target=self._read, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> None:
        try:
            for line in self._lines:
                self._free.acquire()
                self._pending.put((line, self._pool.submit(self._call, line)))
            self._pending.put(None)
        except Exception as error:  # raised where lines are awaited
            self._pending.put(error)

    def __iter__(self) -> Iterator[tuple[Line, Future[Answered]]]:
        while (pending := self._pending.get()) is not None:
            if isinstance(pending, Exception):
                raise pending
            self._free.release()
            yield pending
