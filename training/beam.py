"""Beam search over a PyTorch model, many sources at a time: what figures are measured with.

Ranks as the service does (Wu et al. 2016, arXiv:1609.08144, section 7, with tokens ** penalty as
the norm) and ends once ``width`` hypotheses of a source have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bundle.vocabulary import Vocabulary
from training.models.cells import State


class BeamModel(Protocol):
    """Seq2Seq, or what is called like it: shapes as there."""

    def encode(self, source: Tensor, lengths: Tensor) -> State: ...

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]: ...


@dataclass(frozen=True)
class BeamSettings:
    """width: hypotheses side by side. penalty: a hypothesis is worth its log-probability /
    tokens ** penalty. most_tokens: of an answer, its end not counted.
    """

    width: int
    penalty: float
    most_tokens: int


class Hypothesis(NamedTuple):
    """log_probability: of all its tokens. length: how many, its end counted."""

    log_probability: float
    length: int
    tokens: list[int]

    def score(self, penalty: float) -> float:
        return self.log_probability / self.length**penalty


def best_of(hypotheses: Sequence[Hypothesis], penalty: float) -> list[int]:
    """The tokens of the one with the highest score, none of none."""
    best = max(hypotheses, key=lambda one: one.score(penalty), default=None)
    return best.tokens if best else []


@dataclass
class _Search:
    """The hypotheses of one source: those that have ended, and whose prefixes the rows of the
    batch go on with."""

    settings: BeamSettings
    ended: list[Hypothesis] = field(default_factory=list)
    prefixes: list[list[int]] = field(default_factory=lambda: [[]])
    is_over: bool = False

    def advance(
        self, ranked: list[tuple[float, int, int]], made: int, end: int
    ) -> list[tuple[float, int, int]]:
        """ranked: (total, row, token), best first, twice as many as rows. The ones that go on."""
        width = self.settings.width
        going: list[tuple[float, int, int]] = []
        for place, (total, row, token) in enumerate(ranked):
            if total == float("-inf"):
                break
            if token == end:
                if place < width:
                    self.ended.append(Hypothesis(total, made, self.prefixes[row]))
            elif len(going) < width:
                going.append((total, row, token))
        if made == self.settings.most_tokens:
            self.ended += [
                Hypothesis(total, made, [*self.prefixes[row], token]) for total, row, token in going
            ]
        self.is_over = made == self.settings.most_tokens or len(self.ended) >= width or not going
        self.prefixes = [[*self.prefixes[row], token] for _, row, token in going]
        return going


def beam_search(
    model: BeamModel, source: Tensor, lengths: Tensor, target: Vocabulary, settings: BeamSettings
) -> list[list[int]]:
    """The best token ids of each source, without markers: source (batch, time), lengths (batch,)

    Of width 1 it takes the most probable token at each step.
    """
    found = beam_hypotheses(model, source, lengths, target, settings)
    return [best_of(hypotheses, settings.penalty) for hypotheses in found]


@torch.no_grad()
def beam_hypotheses(
    model: BeamModel, source: Tensor, lengths: Tensor, target: Vocabulary, settings: BeamSettings
) -> list[list[Hypothesis]]:
    """All that have ended of each source, as beam_search has them; no penalty changes which."""
    batch, width = len(source), settings.width
    silent = torch.zeros(len(target))
    silent[list(target.never_sampled_ids)] = float("-inf")
    state = tuple(part.repeat_interleave(width, 0) for part in model.encode(source, lengths))
    # All rows of a source start alike, so only the first counts.
    totals = torch.full((batch, width), float("-inf"), dtype=torch.float64)
    totals[:, 0] = 0.0
    tokens = torch.full((batch * width, 1), target.begin_id)
    searches = [_Search(settings) for _ in range(batch)]
    for made in range(1, settings.most_tokens + 1):
        logits, state = model(tokens, state)
        own = torch.log_softmax(logits[:, -1], dim=1).double() + silent
        scores = (totals.flatten().unsqueeze(1) + own).view(batch, -1)
        best, places = scores.topk(2 * width, dim=1)
        parents = torch.arange(batch * width).view(batch, width)
        tokens = tokens.clone().view(batch, width)
        totals = torch.full_like(totals, float("-inf"))
        for number, search in enumerate(searches):
            if search.is_over:
                continue
            ranked = [
                (total, place // own.shape[1], place % own.shape[1])
                for total, place in zip(best[number].tolist(), places[number].tolist(), strict=True)
            ]
            for slot, (total, row, token) in enumerate(search.advance(ranked, made, target.end_id)):
                totals[number, slot] = total
                parents[number, slot] = number * width + row
                tokens[number, slot] = token
        if all(search.is_over for search in searches):
            break
        tokens = tokens.view(-1, 1)
        state = tuple(part[parents.flatten()] for part in state)
    return [search.ended for search in searches]
