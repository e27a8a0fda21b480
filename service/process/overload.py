"""The overload manager: stages of load shedding as memory runs short.

As Envoy's overload manager: a monitor, thresholds, and an action at each.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable

from service.engine.errors import Overloaded

log = logging.getLogger(__name__)

_EVERY_SECONDS = 0.1
# Freed memory is collected and given back while so much more is used than ever was: what a burst
# took is no reason to refuse anything once the burst is over. As long as that brings so much it
# goes on, else it is tried ever more rarely: it takes the interpreter for some milliseconds.
_KEPT_BYTES, _WORTH_BYTES = 48 << 20, 8 << 20
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0
# Below a threshold by so much of the limit, a stage is over: no flutter at the edge.
_HYSTERESIS = 0.02
_RETRY_AFTER_SECONDS = 2.0
# What takes memory for long, or much of it: refused first.
_LASTING = frozenset(
    (
        "Generate",
        "StreamTag",
        "StreamStep",
        "ModelStreamInfer",
        "RepositoryModelLoad",
        "CreateState",
    )
)
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
        self._least = self._before_trim = resident()
        self._wait = _FIRST_SECONDS
        self._due = clock()

    def check(self, method: str) -> None:
        """Raises Overloaded for a request of ``method`` that is not taken on at this stage."""
        if self.stage is Stage.NORMAL or method in _ALWAYS:
            return
        if self.stage is Stage.SHED or method in _LASTING:
            what = "requests" if self.stage is Stage.SHED else "streams and models"
            raise Overloaded(
                f"the server is near its memory limit and takes no new {what}; try again later",
                _RETRY_AFTER_SECONDS,
            )

    def poll(self) -> None:
        used = self._resident()
        stage = self._stage_at(used)
        self._give_back(used)
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

    def _give_back(self, used: int) -> None:
        self._least = min(self._least, used)
        now = self._clock()
        if used - self._least < _KEPT_BYTES or now < self._due:
            return
        was_worth_it = self._before_trim - used >= _WORTH_BYTES or used > self._before_trim
        self._wait = _FIRST_SECONDS if was_worth_it else min(2 * self._wait, _LONGEST_SECONDS)
        self._due, self._before_trim = now + self._wait, used
        self._trim()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self.poll()
            await asyncio.sleep(_EVERY_SECONDS)
