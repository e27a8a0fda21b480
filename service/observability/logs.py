"""The log's format: a line for people or of JSON, with the request it belongs to.

What callers send is not in it: of an error within a request it has the kind and the place, and
the message only where texts are asked for.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from service.observability.log_queue import LogQueue, writer_to

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error", "critical")
# Of a message, and of each field beside it; a request's text has fewer.
_MOST_CHARACTERS = 20_000
# For what is not written yet when the process ends.
_FLUSH_SECONDS = 1.0

# What would break a line, move the cursor, or show a line in another order than it has.
_BREAKING = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F),
             *range(0x2066, 0x206A))  # fmt: skip
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _BREAKING}


@dataclass(frozen=True, slots=True)
class Ids:
    """trace: of the trace that the request belongs to, empty where its caller began none."""

    request: str
    trace: str = ""


# Of the request that is being served. The threads of engines serve many at once and have none.
IDS: ContextVar[Ids | None] = ContextVar("ids", default=None)


class QueuedHandler(logging.Handler):
    """Makes lines where they are logged, of what is known there, and has a thread write them."""

    def __init__(self, write: Callable[[bytes], object], limit_bytes: int) -> None:
        super().__init__()
        self._queue = LogQueue(write, limit_bytes, self._gap_line)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            # logging's own way out of this writes to standard error, and waits for its reader.
            place = (record.name, record.lineno, type(error).__name__)
            line = self.format(_plain("a line of %s:%d cannot be made: %s", *place))
        self._queue.put(_encoded(line), record.levelname.lower())

    def flush(self) -> None:
        """Wait for what is not written yet, but not for a reader that has stopped."""
        self._queue.flush(_FLUSH_SECONDS)

    @property
    def dropped(self) -> Mapping[str, int]:
        """Counts by level."""
        return self._queue.dropped

    def _gap_line(self, lines: int) -> bytes:
        return _encoded(
            self.format(_plain("%d lines of the log were dropped: nobody read them in time", lines))
        )


def set_up(
    level: str,
    form: str,
    shows_texts: bool = False,
    limit_bytes: int = 1024 * 1024,
    write: Callable[[bytes], object] | None = None,
    worker: int | None = None,
) -> QueuedHandler:
    """Write what is as grave as ``level`` with ``write`` (to standard error), and nowhere else.

    form: console or json. shows_texts: whether messages of errors may hold what callers sent.
    limit_bytes: of lines that may wait for ``write``, which is called on a thread of its own.
    worker: of which processes this one is, in each line; None for the only one.
    """
    handler = QueuedHandler(write or writer_to(standard_error()), limit_bytes)
    handler.addFilter(_with_ids)
    handler.setFormatter((JsonLines if form == "json" else ConsoleLines)(shows_texts, worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # It logs each call that it is at work.
    logging.getLogger("grpc").setLevel(logging.INFO)
    return handler


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())


def flush() -> None:
    """Have what was logged written, where its reader takes it within a second."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def dropped_lines() -> dict[str, int]:
    """How many lines of the log were lost, by level."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, QueuedHandler)]
    return {level: sum(handler.dropped[level] for handler in handlers) for level in LEVELS}


def log_uncaught() -> None:
    """Log what ends the process or a thread, and warnings, as all else is logged.

    Python itself would write to standard error, and wait there for whoever should read it. A
    crash of the process is written to it at once: nothing else could be.
    """
    crashes = logging.getLogger("service")

    def ended(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        crashes.critical("the process ends by an error", exc_info=(kind, error, trace))

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread else "?"
        if args.exc_type is not SystemExit:
            crashes.error("the thread %s ended by an error", name, exc_info=args.exc_value)

    def ignored(args: Any) -> None:
        # Of whatever was freed; what it held may be of a request.
        log.error("an error that nobody can catch", exc_info=args.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = ended, thread_ended, ignored
    logging.captureWarnings(True)
    if sys.stderr:
        faulthandler.enable()


def standard_error() -> int:
    """Nowhere, for a process that was started without one."""
    return sys.stderr.fileno() if sys.stderr else os.open(os.devnull, os.O_WRONLY)


def _encoded(line: str) -> bytes:
    return line.encode(errors="backslashreplace") + b"\n"


def _plain(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, "", 0, message, arguments, None)


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody waits for in ``loop`` as other errors are logged."""
    loop.set_exception_handler(_log_unheard)


def _log_unheard(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # The message that asyncio made holds what the callback was called with.
    log.error("an error that nobody waits for", exc_info=context.get("exception"))


def _with_ids(record: logging.LogRecord) -> bool:
    record.ids = IDS.get()
    return True


def one_line(text: str) -> str:
    """``text`` with everything escaped that is no visible part of a line."""
    return text.translate(_ESCAPES)


def bounded(text: str) -> str:
    """``text``, or its beginning and how long it is."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]}… ({len(text)} characters)"


class _Lines(logging.Formatter):
    def __init__(self, shows_texts: bool, worker: int | None = None) -> None:
        super().__init__()
        self.shows_texts = shows_texts
        self.of_process = {} if worker is None else {"worker": worker}

    def exception_text(self, record: logging.LogRecord) -> str:
        """The error of ``record`` as a traceback, empty without one."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return ""
        is_private = ids_of(record) is not None or record.name == __name__
        return "\n".join(_story(error, self.shows_texts or not is_private))


class ConsoleLines(_Lines):
    """Time, level, message, then what else is known as NAME=VALUE."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        known = fields_of(record) | self.of_process
        if ids := ids_of(record):
            known |= {"request_id": ids.request} | ({"trace_id": ids.trace} if ids.trace else {})
        parts = [bounded(record.getMessage()), *(f"{name}={_shown(known[name])}" for name in known)]
        head = f"{stamp},{record.msecs:03.0f} {record.levelname}"
        line = one_line(" ".join((head, *parts)))
        exception_text = self.exception_text(record)
        return f"{line}\n{exception_text}" if exception_text else line


class JsonLines(_Lines):
    """An object a line, in ASCII. time: UTC."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(record.getMessage()),
            **self.of_process,
        }
        if ids := ids_of(record):
            line |= {"request_id": ids.request} | ({"trace_id": ids.trace} if ids.trace else {})
        line |= fields_of(record)
        if exception_text := self.exception_text(record):
            line["exception"] = exception_text
        return json.dumps(line)


def ids_of(record: logging.LogRecord) -> Ids | None:
    return getattr(record, "ids", None)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was logged with ``extra={"fields": …}``."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return {
        name: bounded(value) if isinstance(value, str) else value for name, value in fields.items()
    }


def _shown(value: Any) -> str:
    text = str(value)
    is_plain = text and not any(character in " \"'=" for character in text)
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _story(error: BaseException, shows_messages: bool) -> Iterator[str]:
    """What led to ``error``, then itself. What is quoted cannot look like another line."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _story(before, shows_messages)
        yield "and then:"
    for part in getattr(error, "exceptions", ()):
        yield from _story(part, shows_messages)
        yield "as part of:"
    yield "Traceback (most recent call last):"
    yield from "".join(traceback.format_tb(error.__traceback__)).splitlines()
    kind = type(error).__qualname__
    yield f"{kind}: {one_line(bounded(str(error)))}" if shows_messages else kind
