"""First tokens: newcomers' first step, in a small batch of their own.

A step of many rows takes several times what one of a few does. A newcomer that joins it waits all
of that for its first token; drawn before it, by a step of the newcomers alone, the token comes
when the prompt is read. Rows are independent of their batch, so its bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from service.engine.slots import Slots

if TYPE_CHECKING:
    from service.engine.decode import DecodeSequence
    from service.engine.step_engine import Runner

# Of everybody's step, what the newcomers' may take.
_WORTH_SHARE = 0.5
# As many as come together by chance; a crowd's step takes as long as everybody's.
MOST_ROWS = 4
_SMOOTHING = 0.3
# Of what such a step is held to take, what is left each time it is not worth it: one that was slow
# because the machine was busy is not held against all that follow.
_FORGETTING = 0.9
# What one step may count as, in what such a step is held to take.
_MOST_COUNTED = 2.0
_WARM_ROUNDS = 3


class FirstTokens:
    """runner: steps ``slots``, and nothing else."""

    def __init__(self, runner: Runner, slots: Slots) -> None:
        self.slots = slots
        self._runner = runner
        self._seconds = 0.0  # of a step, lately
        runner.attach(slots.sides())

    def is_worth(self, streams: int, step_seconds: float) -> bool:
        """Whether a step for so many is short beside one that takes ``step_seconds``."""
        if streams > self.slots.capacity:
            return False
        if self._seconds < _WORTH_SHARE * step_seconds:
            return True
        self._seconds *= _FORGETTING
        return False

    def warm(self, clock: Callable[[], float]) -> None:
        """Run each size once each way, and learn what a step of all rows takes at best."""
        for rows in range(1, self.slots.capacity + 1):
            for side in (0, 1):
                self._runner.step(side, rows)
        self._seconds = min(self._timed(clock) for _ in range(_WARM_ROUNDS))
        self.slots.clear(self.slots.capacity)

    def _timed(self, clock: Callable[[], float]) -> float:
        started = clock()
        self._runner.step(0, self.slots.capacity)
        return clock() - started

    def draw(
        self, streams: Sequence[DecodeSequence], clock: Callable[[], float]
    ) -> list[tuple[int, float]]:
        """A token of each, from its saved state, with its log-probability; the state after it is
        saved instead, and the token is what it reads next."""
        slots, rows = self.slots, len(streams)
        for row, stream in enumerate(streams):
            slots.take(row, stream.saved)
            slots.control(row, stream.token, False, **stream.sampling.values)
            slots.seed(row, stream.key, stream.sample, stream.made)
        slots.draw_uniforms(rows)
        started = clock()
        self._runner.step(slots.side, rows)
        seconds = min(clock() - started, _MOST_COUNTED * self._seconds)
        self._seconds += _SMOOTHING * (seconds - self._seconds)
        slots.swap()
        tokens = slots.next_token[:rows].tolist()
        log_probabilities = slots.log_probability[:rows].tolist()
        for row, stream in enumerate(streams):
            stream.saved, stream.token = slots.save(row), tokens[row]
        for row in reversed(range(rows)):
            slots.give(row, row)
        return list(zip(tokens, log_probabilities, strict=True))
