"""Stages of what is given up as memory runs short, before the process is killed for it.

As Envoy's overload manager: a monitor, thresholds, and an action at each.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import CDLL

from service.engine.errors import Overloaded

log = logging.getLogger(__name__)

_EVERY_SECONDS = 0.1
# Between two times that freed memory is given back to the system: it takes tens of milliseconds.
_TRIM_SECONDS = 5.0
# Below a threshold by so much of the limit, a stage is over: no flutter at the edge.
_HYSTERESIS = 0.02
_RETRY_AFTER_SECONDS = 2.0
_STREAMS = frozenset(("Generate", "StreamTag", "ModelStreamInfer"))
# What answers probes and operators, and takes nothing to speak of.
_ALWAYS = frozenset(("ServerLive", "ServerReady", "ModelReady", "RepositoryModelUnload"))


class Stage(enum.IntEnum):
    NORMAL = 0
    NO_NEW_STREAMS = 1
    SHRINK_BUFFERS = 2
    SHED = 3


class OverloadManager:
    """first_share: of ``limit`` bytes from which new streams are refused; the later stages begin
    at a third and two thirds of what is left above it.

    resident: bytes that the process takes now. shrink: called with whether buffers are to be small,
    when that changes. trim: gives freed memory back. clock: seconds.

    Used from the event loop; poll() is called every so often by run().
    """

    def __init__(
        self,
        limit: int,
        first_share: float,
        resident: Callable[[], int],
        shrink: Callable[[bool], None],
        trim: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        step = (1.0 - first_share) / 3
        self.thresholds = [(first_share + step * number) * limit for number in range(3)]
        self.limit = limit
        self.stage = Stage.NORMAL
        self._resident = resident
        self._shrink = shrink
        self._trim = trim
        self._clock = clock
        self._trimmed: float | None = None

    def check(self, method: str) -> None:
        """Raises Overloaded for a request of ``method`` that is not taken on at this stage."""
        if self.stage is Stage.NORMAL or method in _ALWAYS:
            return
        if self.stage is Stage.SHED or method in _STREAMS:
            what = "requests" if self.stage is Stage.SHED else "streams"
            raise Overloaded(
                f"the server is near its memory limit and takes no new {what}; try again later",
                _RETRY_AFTER_SECONDS,
            )

    def poll(self) -> None:
        used = self._resident()
        stage = self._stage_at(used)
        if stage is not Stage.NORMAL:
            self._trim_now_and_then()
        if stage is self.stage:
            return
        was_small, is_small = (s >= Stage.SHRINK_BUFFERS for s in (self.stage, stage))
        level = logging.WARNING if stage > self.stage else logging.INFO
        log.log(
            level,
            "overload stage %s, was %s: %d of %d MB of memory are used",
            stage.name.lower(),
            self.stage.name.lower(),
            used >> 20,
            self.limit >> 20,
        )
        self.stage = stage
        if was_small != is_small:
            self._shrink(is_small)

    def _stage_at(self, used: int) -> Stage:
        reached = sum(used >= threshold for threshold in self.thresholds)
        if reached >= self.stage:
            return Stage(reached)
        # Going down, one has to be clear of the threshold that was crossed.
        clear = used + _HYSTERESIS * self.limit
        return Stage(min(self.stage, sum(clear >= threshold for threshold in self.thresholds)))

    def _trim_now_and_then(self) -> None:
        now = self._clock()
        if self._trimmed is None or now - self._trimmed >= _TRIM_SECONDS:
            self._trimmed = now
            self._trim()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self.poll()
            await asyncio.sleep(_EVERY_SECONDS)


def resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def trim_memory() -> None:
    """Collect what is unreachable, and have the C library give back what it keeps for later."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        CDLL(None).malloc_trim(0)
