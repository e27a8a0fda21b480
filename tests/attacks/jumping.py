"""The service with a wall clock that jumps: python -m tests.attacks.jumping serve …

SIGUSR1 puts Python's wall clock a day on, SIGUSR2 a day back, as a machine's does that is set
right. The clock that gRPC's own core reads stays as it is.
"""

from __future__ import annotations

import signal
import time

DAY_SECONDS = 86_400


class JumpingClock:
    """In the place of time.time() and time.time_ns()."""

    def __init__(self) -> None:
        self.offset = 0
        self._time, self._time_ns = time.time, time.time_ns

    def install(self) -> None:
        time.time, time.time_ns = self.seconds, self.nanoseconds
        signal.signal(signal.SIGUSR1, lambda *_: self.jump(DAY_SECONDS))
        signal.signal(signal.SIGUSR2, lambda *_: self.jump(-DAY_SECONDS))

    def seconds(self) -> float:
        return self._time() + self.offset

    def nanoseconds(self) -> int:
        return self._time_ns() + self.offset * 10**9

    def jump(self, seconds: int) -> None:
        self.offset += seconds


def main() -> None:
    JumpingClock().install()
    # Imported only now: defaults such as ``clock=time.time`` are to be the jumping one.
    from tests.attacks import contained

    contained.main()


if __name__ == "__main__":
    main()
