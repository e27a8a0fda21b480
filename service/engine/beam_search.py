"""Beam search: the most probable of many continuations, kept side by side.

Hypotheses are ranked as in Wu et al. 2016 (arXiv:1609.08144, section 7), with tokens **
length_penalty as the norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.automaton import ConstrainedText
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


class _Live(NamedTuple):
    """A hypothesis that goes on: its parent's row, its last token, and all of it so far."""

    row: int
    token: int
    total: float
    path: tuple[tuple[int, float], ...]
    text: ConstrainedText | None


class BeamSearch:
    """Pure: reads log-probabilities, says how the rows go on.

    masked: (vocabulary,) 0, or -inf for what may not be made. min_tokens: before which the
    end token may not be. text: that each hypothesis begins as, where it is constrained.
    """

    def __init__(
        self,
        beam: Beam,
        max_tokens: int,
        min_tokens: int,
        end_id: int | None,
        masked: Array,
        text: ConstrainedText | None = None,
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
        self._texts = [text] * beam.width

    def advance(self, log_probabilities: Array) -> Choice | None:
        """Read the rows' log-probabilities (width, vocabulary); None when the search is over."""
        own = log_probabilities.astype(np.float64)
        totals = self._scores[:, None] + own + self.masked
        if self.end_id is not None and self.made < self.min_tokens:
            totals[:, self.end_id] = -np.inf
        self._constrain(totals)
        self.made += 1
        # Twice as many as there are rows: at most that many less one of them can be end tokens.
        most = None if self._texts[0] else 2 * self.beam.width
        ranked = np.argsort(-totals, axis=None, kind="stable")[:most]
        live: list[_Live] = []
        for place, ranks in enumerate(ranked.tolist()):
            row, token = divmod(ranks, totals.shape[1])
            total = float(totals[row, token])
            if total == -np.inf or len(live) == self.beam.width <= place:
                break
            path, text = self._paths[row], self._texts[row]
            if token == self.end_id:
                if place < self.beam.width:
                    self._finish(path, total, FinishReason.END, len(path) + 1)
                continue
            path = (*path, (token, float(own[row, token])))
            text = text and text.after(token)
            if text and text.is_complete:
                if place < self.beam.width:
                    self._finish(path, total, FinishReason.END, len(path))
            elif len(live) < self.beam.width:
                live.append(_Live(row, token, total, path, text))
        return self._go_on(live)

    def _constrain(self, totals: Array) -> None:
        """Nothing may follow but what the constraint of each row's text lets through."""
        bias = np.zeros(totals.shape[1], np.float32)
        for row, text in enumerate(self._texts):
            if text and self._scores[row] > -np.inf:
                text.fill(bias, self.made)
                totals[row] += bias

    def _go_on(self, live: Sequence[_Live]) -> Choice | None:
        if self.made == self.max_tokens:
            for each in live:
                is_whole = not each.text or each.text.may_end
                reason = FinishReason.LENGTH if is_whole else FinishReason.UNFINISHED
                self._finish(each.path, each.total, reason, len(each.path))
            return None
        if not live or self._is_settled(max(each.total for each in live)):
            return None
        # Rows without a hypothesis go on as the first one does, worth nothing.
        rows = [*live, *[live[0]] * (self.beam.width - len(live))]
        self._scores = np.array([each.total for each in rows])
        self._scores[len(live) :] = -np.inf
        self._paths = [each.path for each in rows]
        self._texts = [each.text for each in rows]
        return Choice([each.row for each in rows], [each.token for each in rows])

    def _finish(
        self,
        path: tuple[tuple[int, float], ...],
        total: float,
        reason: FinishReason,
        length: int,
    ) -> None:
        """length: that it is ranked by, an end token counted."""
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
