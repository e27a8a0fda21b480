"""How much is primed between two decode steps: what priming costs, and what may be spent."""

from __future__ import annotations

from dataclasses import dataclass, field

# Before anything was measured: a token of one prompt, in seconds. Too much rather than too
# little, so that the first prompt beside running streams is read in small chunks.
_FIRST_GUESS = 0.001
_SMOOTHING = 0.3


@dataclass
class PrimeCost:
    """Seconds of one more token in each row of a batch, learned from what batches took.

    Rows are grouped by powers of two: a batch costs about its length, times little more than
    its largest weights for few rows, times its rows for many.
    """

    _seconds: dict[int, float] = field(default_factory=dict)

    def observe(self, rows: int, length: int, seconds: float) -> None:
        key = rows.bit_length()
        each = seconds / length
        before = self._seconds.get(key, each)
        self._seconds[key] = before + _SMOOTHING * (each - before)

    def seconds(self, rows: int, length: int) -> float:
        """Of ``rows`` prompts, ``length`` tokens of each."""
        key = rows.bit_length()
        if key in self._seconds:
            return length * self._seconds[key]
        fewer = [k for k in self._seconds if k < key]
        if fewer:  # at most as much as one by one
            nearest = max(fewer)
            return float(length * self._seconds[nearest] * 2 ** (key - nearest))
        more = [k for k in self._seconds if k > key]
        return length * (self._seconds[min(more)] if more else _FIRST_GUESS * rows)


@dataclass
class PrimeCredit:
    """Time that may be spent priming while streams run: saved up, and spent at once.

    share: of a decode step's time that each step earns, which bounds how much slower streams
    get while long prompts are read. burst_steps: what may be saved up, in decode steps: a
    short prompt is then read as a whole and joins the very next step.
    """

    share: float = 0.5
    burst_steps: float = 2.5
    seconds: float = 0.0
    _step_seconds: float = 0.0

    def earn(self, step_seconds: float) -> None:
        """A decode step took this long."""
        if not self._step_seconds:
            self._step_seconds = step_seconds
            self.seconds = self.burst_steps * step_seconds
        self._step_seconds += _SMOOTHING * (step_seconds - self._step_seconds)
        most = self.burst_steps * self._step_seconds
        self.seconds = min(most, self.seconds + self.share * step_seconds)

    def spend(self, seconds: float) -> None:
        """May go below zero, where one token cost more than there was; steps earn it back."""
        self.seconds -= seconds
