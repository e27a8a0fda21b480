"""Throughput of a decoding engine, and the wait that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from service.engine.open_work import Ahead

if TYPE_CHECKING:
    from service.engine.step_engine import StepSequence

_STEP_SMOOTHING = 0.1
_SHARE_SMOOTHING = 0.05
# Running streams are looked through once in so many steps.
_LOOKED_EVERY = 32


class Throughput:
    """Written by the engine's thread; wait_seconds() is asked by the event loop's too.

    made_share: of the tokens that they may make, what streams make before they end.
    """

    def __init__(self) -> None:
        self.made_share = 1.0
        self._step_seconds = 0.0
        self._steps = 0
        # Of each caller's running streams, the tokens that each has left, ascending, and those
        # that they have made together.
        self._running: Mapping[str, tuple[list[float], float]] = {}

    def stepped(self, rows: Sequence[StepSequence], seconds: float) -> None:
        before = self._step_seconds or seconds
        self._step_seconds = before + _STEP_SMOOTHING * (seconds - before)
        self._steps += 1
        if self._steps % _LOOKED_EVERY == 0:
            self._look(rows)

    def _look(self, rows: Sequence[StepSequence]) -> None:
        left: dict[str, list[float]] = {}
        made: dict[str, float] = {}
        for stream in rows:
            request, caller = stream.progress.request, stream.share.caller
            most = request.max_tokens * self.made_share
            left.setdefault(caller, []).append(max(0.0, most - stream.made))
            before = request.resumed.made if request.resumed else 0
            made[caller] = made.get(caller, 0.0) + stream.made - before
        self._running = {caller: (sorted(of), made[caller]) for caller, of in left.items()}

    def ended(self, made_share: float) -> None:
        self.made_share += _SHARE_SMOOTHING * (made_share - self.made_share)

    def wait_seconds(self, ahead: Ahead, capacity: int) -> float:
        """Until a row is free for the caller, which has its share of them, and what others leave.

        Its own work goes first: where few wait, a row is free once so many of those that run have
        ended; where many do, once all is done but what the other rows hold.
        """
        rows = max(1.0, ahead.share * capacity, float(capacity - ahead.others))
        if ahead.size < rows:
            return 0.0
        running, made = self._running.get(ahead.caller, ([], 0.0))
        before = ahead.size - rows + 1
        left = max(0.0, ahead.cost - made)
        steps = left * before / ahead.size / rows
        if running:
            steps = max(steps, running[min(int(before), len(running)) - 1])
        return steps * self._step_seconds
