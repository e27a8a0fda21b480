"""Coalescing: how many tokens share a message when the request does not say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]  # seconds

_SMOOTHING = 0.2
_LEAST_SECONDS = 1e-6  # of a step: what a clock may not resolve


class Coalescer:
    """As many tokens a message as are made while one may wait, and more where sending takes the
    engine its core.

    A message costs more than a token: on few cores, sending each token by itself takes from
    the engine the time it would make tokens in. So a token waits for those that follow it at once,
    by what steps take now. Where an engine's steps take longer than the processor time they get,
    and sending is what takes it, yet more are sent together, and fewer again once that is over.

    share: of a step's wall time that its thread must have computed. wait_seconds: that a token may
    wait for others. sending: of a core that the event loop must be using before it is held to be
    the cause. most: tokens a message.
    """

    def __init__(
        self,
        share: float,
        wait_seconds: float = 0.0,
        sending: float = 0.12,
        most: int = 16,
        period_seconds: float = 0.025,
        batching_delay: int = 8,
        wall: Clock = time.monotonic,
        cpu: Clock = time.thread_time,
        loop_cpu: Clock = lambda: 0.0,
    ) -> None:
        self.share, self.sending, self.most = share, sending, most
        self.tokens_per_message = 1
        self._wait_seconds = wait_seconds
        self._step_seconds = 0.0  # of late, smoothed; 0 before the first one
        self._pressed = 1  # tokens a message, where sending is held to be the cause
        self._period, self._patience = period_seconds, batching_delay
        self._wall, self._cpu, self._loop_cpu = wall, cpu, loop_cpu
        self._began = 0.0, 0.0
        self._steps = [0.0, 0.0]  # wall and processor time of the steps of this period
        self._period_began = 0.0, 0.0  # wall, and the loop's processor time
        self._calm = 0

    def begin(self) -> None:
        """A step begins; called on the engine's thread."""
        self._began = self._wall(), self._cpu()

    def rest(self) -> None:
        """The engine is idle; whoever comes next meets no pressure yet."""
        self.tokens_per_message = self._pressed = 1
        self._step_seconds = 0.0
        self._calm = 0

    def end(self) -> None:
        """The step is done, and nothing was waited for meanwhile but the processor."""
        now = self._wall()
        seconds = max(now - self._began[0], _LEAST_SECONDS)
        self._steps[0] += seconds
        self._steps[1] += self._cpu() - self._began[1]
        if self._steps[0] >= self._period:
            self._look(now)
        before = self._step_seconds
        self._step_seconds = before + _SMOOTHING * (seconds - before) if before else seconds
        waiting = 1 + int(self._wait_seconds / self._step_seconds)
        self.tokens_per_message = min(self.most, max(self._pressed, waiting))

    def _look(self, now: float) -> None:
        (wall, cpu), self._steps = self._steps, [0.0, 0.0]
        before, self._period_began = self._period_began, (now, self._loop_cpu())
        sending = (self._period_began[1] - before[1]) / (now - before[0])
        self._adapt(is_short=cpu < self.share * wall and sending > self.sending)

    def _adapt(self, is_short: bool) -> None:
        """One more at once, one fewer only after a while: either way changes the load."""
        if is_short:
            self._calm = 0
            self._pressed = min(self.most, self.tokens_per_message + 1)
            return
        self._calm += 1
        if self._calm >= self._patience and self._pressed > 1:
            self._calm = 0
            self._pressed -= 1


def clock_of_this_thread() -> Clock:
    """The processor time of the calling thread, for any thread to read."""
    try:
        clock = time.pthread_getcpuclockid(threading.get_ident())
    except AttributeError:  # not on every system
        return time.thread_time
    return lambda: time.clock_gettime(clock)
