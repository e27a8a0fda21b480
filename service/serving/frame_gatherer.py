"""Gathering: frames of many streams are handed to their engine together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from service.engine.frame_stepping import Frame, FrameStream

Pushed = tuple[FrameStream, Frame]

# Of the time between two frames of its stream, what a frame may wait for others, and the most.
_SHARE, _MOST_SECONDS = 0.25, 0.008
# As many together as make a step worth its while.
_ENOUGH = 64


class FrameGatherer:
    """A step of many rows costs little more than one of one row, and waking an engine takes as long
    as a small step. So a frame of a stream that brings them at a steady pace waits for those of
    others: a part of the time until the stream's next one, and no longer than until every stream
    has one. Frames of callers that wait for nothing but their answers do not wait.

    push: hands frames to the engine. For the event loop alone.
    """

    def __init__(self, push: Callable[[Sequence[Pushed]], None]) -> None:
        self.open = 0  # streams that may bring frames
        self._push = push
        self._frames: list[Pushed] = []
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._due = math.inf  # when the timer goes off, by the clock of the frames

    def add(self, stream: FrameStream, frame: Frame, gap: float) -> None:
        """gap: between two frames of the stream, in seconds; 0 where that is not known."""
        frames = self._frames
        frames.append((stream, frame))
        count = len(frames)
        if count < _ENOUGH:
            if count >= self.open:
                self.flush()  # nobody else is to be waited for
                return
            seconds = min(_SHARE * gap, _MOST_SECONDS, _SHARE * (frame.deadline - frame.arrived))
        else:
            seconds = 0.0
        due = frame.arrived + seconds
        if due < self._due:
            self._flush_at(due, seconds)

    def _flush_at(self, due: float, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        loop = asyncio.get_running_loop()
        if seconds > 0:
            self._timer = loop.call_later(seconds, self.flush)
        else:
            # After what the loop has to read now: it may be more frames.
            self._timer = loop.call_soon(self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._due = math.inf
        if self._frames:
            frames, self._frames = self._frames, []
            self._push(frames)
