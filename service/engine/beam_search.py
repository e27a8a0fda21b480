"""Beam search: the most probable of many continuations, kept side by side.

Hypotheses are ranked as in Wu et al. 2016 (arXiv:1609.08144, section 7), with tokens **
length_penalty as the norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.requests import Beam, FinishReason

Array = NDArray[Any]


@dataclass(frozen=True)
class Hypothesis:
    """(token, its log-probability) pairs, without the end token; score: what ranks it.

    log_probability: of all of it, an end token included.
    """

    tokens: tuple[tuple[int, float], ...]
    log_probability: float
    score: float
    reason: FinishReason


@dataclass(frozen=True)
class Choice:
    """How the rows go on: row i from the state of row parents[i], reading tokens[i]."""

    parents: list[int]
    tokens: list[int]


class BeamSearch:
    """Pure: reads log-probabilities, says how the rows go on.

    masked: (vocabulary,) 0, or -inf for what may not be made. min_tokens: before which the
    end token may not be.
    """

    def __init__(
        self, beam: Beam, max_tokens: int, min_tokens: int, end_id: int | None, masked: Array
    ) -> None:
        self.beam = beam
        self.max_tokens = max_tokens
        self.min_tokens = min_tokens
        self.end_id = end_id
        self.masked = masked.astype(np.float64)
        self.made = 0
        self.finished: list[Hypothesis] = []
        # All rows start alike, so only the first counts.
        self._scores = np.full(beam.width, -np.inf)
        self._scores[0] = 0.0
        self._paths: list[tuple[tuple[int, float], ...]] = [()] * beam.width

    def advance(self, log_probabilities: Array) -> Choice | None:
        """Read the rows' log-probabilities (width, vocabulary); None when the search is over."""
        own = log_probabilities.astype(np.float64)
        totals = self._scores[:, None] + own + self.masked
        if self.end_id is not None and self.made < self.min_tokens:
            totals[:, self.end_id] = -np.inf
        self.made += 1
        # Twice as many as there are rows: at most that many less one of them can be ends.
        ranked = np.argsort(-totals, axis=None, kind="stable")[: 2 * self.beam.width]
        rows, tokens = np.unravel_index(ranked, totals.shape)
        live: list[tuple[int, int, float]] = []
        for place, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
            total = float(totals[row, token])
            if total == -np.inf:
                break
            if token == self.end_id:
                if place < self.beam.width:
                    self._finish(self._paths[row], total, FinishReason.END)
            elif len(live) < self.beam.width:
                live.append((row, token, total))
        return self._go_on(live, own)

    def _go_on(self, live: Sequence[tuple[int, int, float]], own: Array) -> Choice | None:
        paths = [(*self._paths[row], (token, float(own[row, token]))) for row, token, _ in live]
        if self.made == self.max_tokens:
            for path, (_, _, total) in zip(paths, live, strict=True):
                self._finish(path, total, FinishReason.LENGTH)
            return None
        if not live or self._is_settled(max(total for _, _, total in live)):
            return None
        missing = self.beam.width - len(live)
        self._scores = np.array([total for *_, total in live] + [-np.inf] * missing)
        self._paths = paths + [()] * missing
        return Choice(
            [row for row, *_ in live] + [live[0][0]] * missing,
            [token for _, token, _ in live] + [live[0][1]] * missing,
        )

    def _finish(
        self, path: tuple[tuple[int, float], ...], total: float, reason: FinishReason
    ) -> None:
        length = len(path) + (reason is FinishReason.END)
        score = total / length**self.beam.length_penalty
        self.finished.append(Hypothesis(path, total, score, reason))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.beam.width :]

    def _is_settled(self, best_total: float) -> bool:
        if len(self.finished) < self.beam.width:
            return False
        if self.beam.early_stop:
            return True
        # The most that the best running hypothesis can still be worth: totals only fall, and
        # a positive penalty values a long one most.
        length = self.max_tokens if self.beam.length_penalty > 0 else self.made
        return bool(self.finished[-1].score >= best_total / length**self.beam.length_penalty)

    def best(self) -> list[Hypothesis]:
        """The answer, best first; fewer than asked for where there were no more."""
        return self.finished[: self.beam.best]
