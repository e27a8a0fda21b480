"""Prefill between decode steps: its cost model and its budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

# The longest pause between two steps; PrefillBudget.burst_steps where those are longer. With 4 ms a
# queue of long prompts is read in 1.6 times the time that pauses without a bound take, with 3 ms
# in 2.4 times, with 8 ms in 1.3: fewer prompts side by side cost more each (docs/decisions/0045).
LEAST_PAUSE_SECONDS = 0.004
# A short step counts as so many times what it takes, as long as that is no more than so many
# seconds: a token every five milliseconds is as good as one every three, and long prompts are read
# sooner.
_SHORT_COUNTS, _SHORT_SECONDS = 1.6, 0.0032
# A longer one, once in so many steps: it is no part of the slowest hundredth of the gaps between
# two tokens, and lets newcomers that come together have their first tokens early, such as 64
# prompts of 32 characters.
LONG_PAUSE_SECONDS, LONG_PAUSE_EVERY_STEPS = 0.15, 256
# So many newcomers have it. It waits until nobody has come for two steps, so that it serves all
# who come together, but no longer than for so many steps.
_TOGETHER, _GATHER_STEPS, _MOST_GATHER_STEPS = 8, 2, 6
# Before anything was measured: a token of one prompt, in seconds. Too much rather than too
# little, so that the first prompt beside running streams is read in small chunks.
_FIRST_GUESS = 0.001
_SMOOTHING = 0.3


@dataclass
class PrefillCost:
    """Seconds of one more token in each row of a batch, learned from what batches took.

    Rows are grouped by powers of two, and within a group each row costs the same: 63 rows
    must not be priced by what 32 took, or a pause between two steps is twice what it may be. A
    row of a larger batch never costs more than one of a smaller batch: what one batch took
    corrects what is known of the others, so that a moment's slowness is no reason never to read
    so many together again.
    """

    # By group, of one token of one row.
    _seconds: dict[int, float] = field(default_factory=dict)

    def observe(self, rows: int, length: int, seconds: float) -> None:
        key = rows.bit_length()
        each = seconds / (length * rows)
        before = self._seconds.get(key, each)
        now = self._seconds[key] = before + _SMOOTHING * (each - before)
        for other, known in self._seconds.items():
            if other != key:
                self._seconds[other] = max(known, now) if other < key else min(known, now)

    @staticmethod
    def sizes(rows: int) -> Iterator[int]:
        """The largest batch of each group, up to so many rows."""
        size = 1
        while size < rows:
            yield size
            size = 2 * size + 1
        yield rows

    def seconds(self, rows: int, length: int) -> float:
        """Of ``rows`` prompts, ``length`` tokens of each."""
        key = rows.bit_length()
        if key in self._seconds:
            return length * rows * self._seconds[key]
        fewer = [k for k in self._seconds if k < key]
        if fewer:  # at most as much as one by one
            return length * rows * self._seconds[max(fewer)]
        more = [k for k in self._seconds if k > key]
        if more:  # no more than the least of the next larger ones
            nearest = min(more)
            return length * self._seconds[nearest] * 2.0 ** (nearest - 1)
        return length * rows * _FIRST_GUESS


@dataclass
class PrefillBudget:
    """Time that may be spent on prefill while streams run: saved up, and spent at once.

    share: of a decode step's time that each step earns, or of more where steps are short, which
    bounds how much slower streams get while long prompts are read. burst_steps: what may be saved
    up, in decode steps: a short prompt is then read as a whole and joins the very next step.
    """

    share: float = 1.0
    burst_steps: float = 3.0
    seconds: float = 0.0
    _step_seconds: float = 0.0
    # Steps since the last longer pause, since the last newcomer, and for which one was put off.
    _since_burst: int = LONG_PAUSE_EVERY_STEPS
    _since_newcomer: int = 0
    _put_off: int = 0
    _is_burst: bool = False  # the pause that allowance() allowed

    @property
    def usual_pause(self) -> float:
        """Seconds that prefill may take between two steps, however many wait."""
        return max(LEAST_PAUSE_SECONDS, self.burst_steps * self._step_seconds)

    @property
    def step_seconds(self) -> float:
        """Of a decode step, lately; 0 before the first one."""
        return self._step_seconds

    @property
    def loan(self) -> float:
        """Seconds that prefill may take before the next step where that is all that newcomers need.

        What was not earned yet, the next steps pay off, and until then nothing more is lent.
        """
        return self.usual_pause if self.seconds > 0 else 0.0

    def allowance(self, queue_pressure: float, newcomers: int) -> float:
        """Seconds that prefill may take before the next step.

        queue_pressure: how much more may be spent than was earned. newcomers: streams that wait for
        their first token.
        """
        self._is_burst = newcomers >= _TOGETHER and self._since_burst >= LONG_PAUSE_EVERY_STEPS
        if not self._is_burst:
            self._put_off = 0
            return min(self.seconds * queue_pressure, self.usual_pause)
        self._put_off += 1
        if self._since_newcomer < _GATHER_STEPS and self._put_off <= _MOST_GATHER_STEPS:
            return 0.0
        return min(self.seconds * queue_pressure, max(self.usual_pause, LONG_PAUSE_SECONDS))

    def goes_on(self, left: float) -> bool:
        """Whether a longer pause, of which so many seconds are left, has room for more."""
        return self._is_burst and left > self.usual_pause

    def newcomer(self) -> None:
        """A stream has come."""
        self._since_newcomer = 0

    def rest(self) -> None:
        """Nobody runs any more: whoever comes next has met no longer pause."""
        self._since_burst = LONG_PAUSE_EVERY_STEPS

    def earn(self, step_seconds: float) -> None:
        """A decode step took this long."""
        self._since_burst += 1
        self._since_newcomer += 1
        if not self._step_seconds:
            self._step_seconds = step_seconds
            self.seconds = self.burst_steps * step_seconds
        self._step_seconds += _SMOOTHING * (step_seconds - self._step_seconds)
        most = self.burst_steps * self._step_seconds
        worth = max(step_seconds, min(_SHORT_COUNTS * step_seconds, _SHORT_SECONDS))
        self.seconds = min(most, self.seconds + self.share * worth)

    def spend(self, seconds: float, pause: float = 0.0) -> None:
        """May go below zero, where one token cost more than there was; steps earn it back.

        pause: that those who run have waited, in seconds.
        """
        self.seconds -= seconds
        if self._is_burst and pause > self.usual_pause:
            self._since_burst = self._put_off = 0
