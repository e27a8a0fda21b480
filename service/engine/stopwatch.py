"""A stopwatch on a clock that its owner reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stopwatch:
    """Seconds that passed while it ran, on a clock that its owner reads."""

    seconds: float = 0.0
    since: float | None = None

    def start(self, now: float) -> None:
        if self.since is None:
            self.since = now

    def stop(self, now: float) -> None:
        if self.since is not None:
            self.seconds += now - self.since
            self.since = None
