"""What an engine that decodes gets done, and how long new work would wait by that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from service.engine.open_work import Ahead

if TYPE_CHECKING:
    from service.engine.generating import Stream

_STEP_SMOOTHING = 0.1
_SHARE_SMOOTHING = 0.05
# What running streams have made is summed up once in so many steps.
_SUMMED_EVERY = 32


class Throughput:
    """Written by the engine's thread; wait_seconds() is asked by the event loop's too.

    made_share: of the tokens that they may make, what streams make before they end.
    """

    def __init__(self) -> None:
        self.made_share = 1.0
        self._step_seconds = 0.0
        self._steps = 0
        self._made: Mapping[str, int] = {}  # by the running streams of each caller

    def stepped(self, rows: Sequence[Stream], seconds: float) -> None:
        before = self._step_seconds or seconds
        self._step_seconds = before + _STEP_SMOOTHING * (seconds - before)
        self._steps += 1
        if self._steps % _SUMMED_EVERY == 0:
            made: Counter[str] = Counter()
            for stream in rows:
                resumed = stream.progress.request.resumed
                made[stream.share.caller] += stream.made - (resumed.made if resumed else 0)
            self._made = made

    def ended(self, made_share: float) -> None:
        self.made_share += _SHARE_SMOOTHING * (made_share - self.made_share)

    def wait_seconds(self, ahead: Ahead, capacity: int) -> float:
        """Until a row is free for the caller, which has its share of them, and what others leave.

        Its own work goes first: a row is free once all of it but what the other rows hold is done.
        """
        rows = max(1.0, ahead.share * capacity, float(capacity - ahead.others))
        if ahead.size < rows:
            return 0.0
        left = max(0.0, ahead.cost - self._made.get(ahead.caller, 0))
        first = (ahead.size - rows + 1) / ahead.size
        return left * first * self._step_seconds / rows
