"""Files that an operator replaces while the service runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Content = TypeVar("Content")
# How a file looks from outside; None for one that is not there.
_Look = tuple[int, int, int, int] | None

# Between two looks at the files; whoever asks in between gets what was read.
LOOK_SECONDS = 1.0


class FileUnusable(ValueError):
    """A file that cannot be used; the message names its setting and shows nothing of a secret."""


class Renewed(Generic[Content]):
    """What ``read`` makes of ``files``, read again once one of them has changed.

    Files are looked at when somebody asks, so nothing runs while nobody does. Links are
    followed: to point one elsewhere is a change. What cannot be used is logged and
    reported to ``failed`` once, and what was read before stays. Any thread may ask.

    read: raises FileUnusable. clock: seconds, monotonic.

    Raises FileUnusable where there is nothing from before.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[], Content],
        failed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._read = read
        self._failed = failed
        self._clock = clock
        self._lock = threading.Lock()
        self._looks = self._look()
        self._content = read()
        self._looked = clock()

    def get(self) -> Content:
        if self._clock() - self._looked >= LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._renew()
            finally:
                self._lock.release()
        return self._content

    def reload(self) -> None:
        """Read the files now, whether they look changed or not."""
        with self._lock:
            self._renew(is_asked=True)

    def _renew(self, is_asked: bool = False) -> None:
        self._looked = self._clock()
        looks = self._look()
        if looks == self._looks and not is_asked:
            return
        try:
            content = self._read()
        except FileUnusable as error:
            self._looks = looks
            log.error("%s; what was read before stays in use", error)
            self._failed()
            return
        # Files that changed meanwhile may not belong together: the next look reads them.
        if self._look() == looks:
            self._looks, self._content = looks, content
            log.info("read again: %s", ", ".join(map(str, self._files)))

    def _look(self) -> list[_Look]:
        return [_look_at(file) for file in self._files]


def _look_at(file: Path) -> _Look:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def read_file(file: Path, setting: str) -> bytes:
    """Raises FileUnusable."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise FileUnusable(f"{setting}: {file} cannot be read ({error.strerror})") from error
