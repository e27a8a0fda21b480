"""How the log is written: a line for people or one of JSON, with the request that it is about.

What callers send is not in it: of an error within a request it has the kind and the place, and
the message only where texts are asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

log = logging.getLogger(__name__)

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


def set_up(level: str, form: str, shows_texts: bool = False, stream: TextIO | None = None) -> None:
    """Write what is as grave as ``level`` to ``stream`` (standard error), and nowhere else.

    form: console or json. shows_texts: whether messages of errors may hold what callers sent.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_with_ids)
    handler.setFormatter((JsonLines if form == "json" else ConsoleLines)(shows_texts))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It tells of each call that it is at work.
    logging.getLogger("grpc").setLevel(logging.INFO)


def hear_loop(loop: asyncio.AbstractEventLoop) -> None:
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


class _Lines(logging.Formatter):
    def __init__(self, shows_texts: bool) -> None:
        super().__init__()
        self.shows_texts = shows_texts

    def told(self, record: logging.LogRecord) -> str:
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
        known = dict(fields_of(record))
        if ids := ids_of(record):
            known |= {"request_id": ids.request} | ({"trace_id": ids.trace} if ids.trace else {})
        parts = [record.getMessage(), *(f"{name}={_shown(known[name])}" for name in known)]
        head = f"{stamp},{record.msecs:03.0f} {record.levelname}"
        line = one_line(" ".join((head, *parts)))
        told = self.told(record)
        return f"{line}\n{told}" if told else line


class JsonLines(_Lines):
    """An object a line, in ASCII. time: UTC."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if ids := ids_of(record):
            line |= {"request_id": ids.request} | ({"trace_id": ids.trace} if ids.trace else {})
        line |= fields_of(record)
        if told := self.told(record):
            line["exception"] = told
        return json.dumps(line)


def ids_of(record: logging.LogRecord) -> Ids | None:
    return getattr(record, "ids", None)


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What was logged with ``extra={"fields": …}``."""
    return getattr(record, "fields", {})


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
    yield f"{kind}: {one_line(str(error))}" if shows_messages else kind
