"""How many tokens go into one message while nobody says otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """One token a message, as long as sending leaves the engine its core.

    A message costs more than a token: on few cores, sending each token by itself takes from
    the engine the time it would make tokens in. So where an engine's steps take longer than
    the processor time they get, more tokens are sent together, and fewer again once they do
    not.

    share: of a step's wall time that its thread must have computed. most: tokens a message.
    """

    def __init__(
        self,
        share: float,
        most: int = 16,
        period_seconds: float = 0.025,
        patience: int = 8,
        wall: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.share = share
        self.most = most
        self.tokens_per_message = 1
        self._period, self._patience = period_seconds, patience
        self._clocks = wall, cpu
        self._started = 0.0, 0.0
        self._spent = [0.0, 0.0]
        self._calm = 0

    def begin(self) -> None:
        """A step begins; called on the engine's thread."""
        wall, cpu = self._clocks
        self._started = wall(), cpu()

    def end(self) -> None:
        """The step is done, and nobody was waited for meanwhile but the processor."""
        for which, clock in enumerate(self._clocks):
            self._spent[which] += clock() - self._started[which]
        wall, cpu = self._spent
        if wall >= self._period:
            self._spent = [0.0, 0.0]
            self._adapt(cpu / wall)

    def _adapt(self, share: float) -> None:
        """One more at once, one fewer only after a while: either way changes the load."""
        if share < self.share:
            self._calm = 0
            self.tokens_per_message = min(self.most, self.tokens_per_message + 1)
            return
        self._calm += 1
        if self._calm >= self._patience and self.tokens_per_message > 1:
            self._calm = 0
            self.tokens_per_message -= 1
