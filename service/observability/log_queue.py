"""The queue of log lines: logging never waits for whoever reads the log."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

# What a line that waits costs beside its bytes.
_LINE_BYTES = 100


@dataclass(slots=True)
class _Gap:
    """In the place of lines that were dropped."""

    lines: int = 0


@dataclass(frozen=True, slots=True)
class _Line:
    content: bytes
    level: str

    @property
    def size(self) -> int:
        return len(self.content) + _LINE_BYTES


class LogQueue:
    """Lines that wait to be written, in order, by a thread of their own.

    Lines beyond the limit are dropped and counted, and a line in their place says how many.

    write: of a line's bytes, ending in a line break; may block for as long as it likes, and may
    raise OSError, which loses the line. limit_bytes: of what waits at most, the line that is
    being written included. gap_line: makes the line that says how many were dropped.
    dropped: counts by level, all that were lost.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        limit_bytes: int,
        gap_line: Callable[[int], bytes],
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._write, self._limit, self._gap_line = write, limit_bytes, gap_line
        self._waiting: deque[_Line | _Gap] = deque()
        # The last one that waits, while nothing was taken since.
        self._gap: _Gap | None = None
        self._bytes = 0
        self._unwritten = 0
        # Its lock can be taken twice by one thread: a finalizer may log while a line is put.
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, content: bytes, level: str) -> None:
        """Have a line written, or count it as dropped. Never waits for a write."""
        line = _Line(content, level)
        with self._changed:
            # After a loss half of the room must be free first: with a reader that is slow, else,
            # every other line would be one about a loss.
            room = self._limit // 2 if self._gap else self._limit
            if self._bytes + line.size > room:
                self._drop(level)
                return
            self._gap = None
            self._bytes += line.size
            self._append(line)

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, for at most so long; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unwritten, seconds)

    def _drop(self, level: str) -> None:
        self.dropped[level] += 1
        if self._gap is None:
            self._gap = _Gap()
            self._append(self._gap)
        self._gap.lines += 1

    def _append(self, entry: _Line | _Gap) -> None:
        self._waiting.append(entry)
        self._unwritten += 1
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            self._write_next()

    def _write_next(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            entry = self._waiting.popleft()
            if entry is self._gap:
                self._gap = None
        is_written = self._try_to_write(entry)
        with self._changed:
            if isinstance(entry, _Line):
                self._bytes -= entry.size
                if not is_written:
                    self.dropped[entry.level] += 1
            self._unwritten -= 1
            self._changed.notify_all()

    def _try_to_write(self, entry: _Line | _Gap) -> bool:
        """Whether anybody can read it: its reader may have gone, or the disk be full."""
        try:
            self._write(entry.content if isinstance(entry, _Line) else self._gap_line(entry.lines))
        except OSError:
            return False
        return True


def alone(write: Callable[[bytes], object], lock: int) -> Callable[[bytes], None]:
    """``write``, one process at a time: a pipe takes no long line in one piece.

    lock: descriptor of a file that these processes share; one that ends gives it up.
    """

    def write_alone(content: bytes) -> None:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        try:
            write(content)
        finally:
            fcntl.lockf(lock, fcntl.LOCK_UN)

    return write_alone


def writer_to(descriptor: int) -> Callable[[bytes], None]:
    """Writes the whole of what it is given, however long that takes.

    Not through a file object: at the process's end one cannot be closed while a thread writes.
    """

    def write(content: bytes) -> None:
        while content:
            try:
                content = content[os.write(descriptor, content) :]
            except BlockingIOError:  # whoever shares it made it so
                select.select([], [descriptor], [])

    return write
