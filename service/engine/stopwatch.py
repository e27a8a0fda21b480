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

    def read(self, now: float) -> float:
        """Its seconds so far; it goes on."""
        return self.seconds if self.since is None else self.seconds + now - self.since

    def stop(self, now: float) -> None:
        if self.since is not None:
            self.seconds += now - self.since
            self.since = None
