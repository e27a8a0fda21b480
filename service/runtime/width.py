"""Width: whether a graph is done sooner on several threads, found out as it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

# Of what one thread takes, what several may: they take the time of a core that others want.
_WORTH = 0.85
# Runs of each to begin with, the best of which counts: a first run allocates.
_FIRST_RUNS = 3
_SMOOTHING = 0.2
# A look at the other one comes seldom, so it counts for more.
_LOOK_SMOOTHING = 0.5
# A run that met another program on its core counts as so many times what was known at most.
_MOST_COUNTED = 2.0


@dataclass(slots=True)
class Width:
    """Of batches of about one size. Threads may share it: of what two of them note at once, one is
    lost.

    Where a core is free a second thread nearly halves a long run. Where the front end, or another
    model, has work for it, such a run waits for its slower half, and the others wait for both: one
    thread is as fast then, and leaves a core to them. Which of these it is changes from second to
    second, so each is tried now and then, and what it takes decides. The bits are the same.

    look_every: runs of which one is a look at the width that is not used.
    """

    look_every: int
    _runs: int = 0
    _is_look: bool = False
    # On one thread and on several, in seconds of one unit of work; each with its runs so far.
    _seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _counts: list[int] = field(default_factory=lambda: [0, 0])

    def is_wide(self) -> bool:
        """Whether the next run is to be on several threads."""
        self._runs += 1
        if min(self._counts) < _FIRST_RUNS:
            return self._counts[True] < self._counts[False]
        self._is_look = self._runs % self.look_every == 0
        return self._is_wide_best() != self._is_look

    def _is_wide_best(self) -> bool:
        return self._seconds[True] < _WORTH * self._seconds[False]

    def ran(self, is_wide: bool, seconds: float) -> None:
        """That run took so long for each unit of its work."""
        known, count = self._seconds[is_wide], self._counts[is_wide]
        self._counts[is_wide] = count + 1
        if count < _FIRST_RUNS:
            self._seconds[is_wide] = min(known, seconds) if count else seconds
            return
        share = _LOOK_SMOOTHING if self._is_look else _SMOOTHING
        self._seconds[is_wide] = known + share * (min(seconds, _MOST_COUNTED * known) - known)
