"""The queue of loads and unloads: their order and limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.engine.errors import QueueFull, RequestError

# Until a load has ended, nobody knows how long one takes.
_LEAST_RETRY_SECONDS = 1.0


@dataclass(eq=False)
class _Turn:
    name: str
    is_load: bool
    begins: asyncio.Future[None]


class LoadQueue:
    """One load or unload of a model at a time, ``at_once`` loads of different ones, in the order
    they came. For the event loop alone.

    limit: how many may wait. clock: in seconds.
    """

    def __init__(
        self, at_once: int, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.at_once = at_once
        self.limit = limit
        self._clock = clock
        self._running: dict[str, tuple[bool, float]] = {}  # is_load, and when it began
        self._waiting: list[_Turn] = []
        self._load_seconds = 0.0  # that the last load took

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, name: str, is_load: bool) -> None:
        """Wait until it is the turn of ``name``. Pair with leave().

        A caller that is cancelled meanwhile gives its place up. Raises QueueFull, or what
        close() makes.
        """
        if self._may_begin(name, is_load):
            self._begin(name, is_load)
            return
        if self.waiting >= self.limit:
            raise QueueFull(
                f"{self.waiting} loads and unloads wait, as many as may (max_waiting_loads); "
                f"send that of {name!r} again later",
                self._retry_seconds,
            )
        turn = _Turn(name, is_load, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        try:
            await turn.begins
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def leave(self, name: str) -> None:
        is_load, began = self._running.pop(name)
        if is_load:
            self._load_seconds = self._clock() - began
        self._begin_next()

    def close(self, make_error: Callable[[], RequestError]) -> None:
        """Whoever waits gets an error of its own; what has begun goes on."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.begins.done():
                turn.begins.set_exception(make_error())

    @property
    def _retry_seconds(self) -> float:
        """Until those that wait now have had their turn, if all take as long as the last one."""
        return max(_LEAST_RETRY_SECONDS, self._load_seconds * (self.waiting + 1) / self.at_once)

    def _may_begin(self, name: str, is_load: bool) -> bool:
        loads = sum(is_load for is_load, _ in self._running.values())
        return name not in self._running and not (is_load and loads >= self.at_once)

    def _begin(self, name: str, is_load: bool) -> None:
        self._running[name] = (is_load, self._clock())

    def _begin_next(self) -> None:
        for turn in list(self._waiting):
            if turn.begins.done():  # its caller has left, and is about to say so
                continue
            if self._may_begin(turn.name, turn.is_load):
                self._begin(turn.name, turn.is_load)
                self._waiting.remove(turn)
                turn.begins.set_result(None)

    def _give_up(self, turn: _Turn) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif not turn.begins.cancelled() and turn.begins.exception() is None:
            self.leave(turn.name)  # its turn had come in the same moment
