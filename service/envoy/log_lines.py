"""Envoy's standard error as lines of the service's log."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator

from service.envoy.relay import RESET

log = logging.getLogger("envoy")

# As Envoy writes them: %l is the level.
FORMAT = "[%l] %v"
_LINE = re.compile(r"\[(trace|debug|info|warning|error|critical)\] (.*)", re.DOTALL)
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
# Warnings to Envoy; to the service they say that it was heard.
_USUAL = re.compile("caught ENVOY_SIGTERM")
# What pyvoy writes before the traceback of an application that failed.
_FAILED = "Exception in ASGI application"
# What a caller might provoke must not fill the log: so many lines at once, and then one in so many
# seconds.
_BURST, _SECONDS_A_LINE = 100, 10.0


class EnvoyLog:
    """clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._allowed, self._looked = float(_BURST), clock()
        self._left_out = 0

    def read(self, lines: Iterable[bytes]) -> None:
        """Until they end."""
        for line in without_resets(line.decode(errors="replace").rstrip() for line in lines):
            self.take(line)

    def take(self, line: str) -> None:
        level, message = logging.WARNING, line
        if (found := _LINE.fullmatch(line)) is not None:
            level, message = _LEVELS[found[1]], found[2]
        if _USUAL.match(message):
            level = logging.DEBUG
        if not self._may_write():
            self._left_out += 1
            return
        if self._left_out:
            log.warning("%d lines of Envoy's are left out: it wrote too many", self._left_out)
            self._left_out = 0
        log.log(level, "%s", message)

    def _may_write(self) -> bool:
        now = self._clock()
        earned = (now - self._looked) / _SECONDS_A_LINE
        self._allowed = min(float(_BURST), self._allowed + earned)
        self._looked = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


def without_resets(lines: Iterable[str]) -> Iterator[str]:
    """Envoy's lines without those of calls that are reset, which is how some of them end."""
    held: list[str] = []
    for line in lines:
        if held or line == _FAILED:
            held.append(line)
            if line.startswith((" ", _FAILED, "Traceback ")):
                continue
            if not line.endswith(RESET):
                yield from held
            held = []
        else:
            yield line
    yield from held
