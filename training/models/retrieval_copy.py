"""What training wrote for the vectors most like one, for a writer to copy from.

A memory of whole examples, found by their distance and read by attention. Guu et al. 2018,
arXiv:1709.08878, write from one example's wording; Khandelwal et al. 2020, arXiv:1911.00172,
look for prefixes that the writer itself reads alike. A token is copied as See, Liu and Manning
2017, arXiv:1704.04368, equation 9, copy it, but the share of attention is added to its logit,
not to its probability: that needs no logarithm, which onnxruntime rounds otherwise at the end of
an array than in its middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.vocabulary import PADDING_ID
from training.models.cells import State
from training.models.example_ranker import ExampleRanker, RankedExamples

# Added to the score of a slot that holds nothing to copy: exp of it is zero in float32.
_NOTHING = -1e9

# Squared distance, in deviations of the values, of a training vector from itself at most.
_ITSELF = 1e-3

# How much farther apart examples lie, before training, than their values' deviations say:
# likelihood alone is slow to learn that words of several names, mixed, make no name.
_SHARPNESS = 4.0

# How much less a score counts for each example before its own: more than rounding, less than all
# else.
_TIE = 1e-3

_SMALL_IDS = 2**15  # so many fit into int16

# What a logit gains, before training, where all attention is on its token.
_STRENGTH = 5.0


@dataclass(frozen=True)
class RetrievedMemory:
    """Every token of the nearest examples: nearest * length slots of each row.

    keys: (batch, slots, size). tokens: (batch, slots) int64. scores: (batch, slots), minus the
    distance of the slot's example, or _NOTHING for padding.
    """

    keys: Tensor
    tokens: Tensor
    scores: Tensor

    @property
    def state(self) -> State:
        return self.keys, self.tokens, self.scores


class Examples(nn.Module):
    """The memory; ``remember`` fills it.

    vectors: (vector_size, examples), standardised, 0 where unknown. known: (vector_size, examples)
    bool, which are; None where all are. tokens: (examples, 1 + length), begin, then
    what was written; int16 where the vocabulary's ids are that small, else int32. log_weights:
    (vector_size,) of how much each value counts for nearness, where no ranker says it. ranker: of
    the ``candidates`` that are nearest, which are to be copied from; None: the nearest are.
    """

    vectors: Tensor
    known: Tensor | None
    tokens: Tensor

    def __init__(
        self,
        examples: int,
        length: int,
        nearest: int,
        size: int,
        vector_size: int,
        embedding_size: int,
        features: int,
        vocabulary_size: int,
        unknown: bool = False,
        candidates: int = 0,
        ranker: ExampleRanker | None = None,
    ) -> None:
        super().__init__()
        self.nearest, self.candidates = nearest, candidates or nearest
        self.ranker = ranker
        self.register_buffer("vectors", torch.zeros(vector_size, examples))
        known = torch.ones(vector_size, examples, dtype=torch.bool) if unknown else None
        self.register_buffer("known", known)
        kind = torch.int16 if vocabulary_size <= _SMALL_IDS else torch.int32
        self.register_buffer("tokens", torch.zeros(examples, 1 + length, dtype=kind))
        if ranker is None:
            self.log_weights = nn.Parameter(torch.full((vector_size,), math.log(_SHARPNESS)))
        self.key = nn.Linear(features + embedding_size, size)
        self.query = nn.Linear(features, size, bias=False)
        self.strength = nn.Linear(features + size, 1)
        nn.init.constant_(self.strength.bias, _STRENGTH)

    def remember(
        self,
        vectors: Tensor,
        known: Tensor | None,
        begin_id: int,
        sequences: Sequence[Sequence[int]],
    ) -> None:
        """vectors (examples, vector_size), standardised, no two alike, and which of their values
        are known; of each the tokens that were written for it, padding for what is not to be
        copied. What is longer than the memory's length is cut. There may be more or fewer than
        before.
        """
        self.vectors = vectors.T.contiguous()
        self.known = None if known is None else known.T.contiguous()
        self.tokens = self.tokens.new_full((len(vectors), self.tokens.shape[1]), PADDING_ID)
        for row, sequence in zip(self.tokens, sequences, strict=True):
            kept = [begin_id, *sequence][: len(row)]
            row[: len(kept)] = torch.tensor(kept, dtype=self.tokens.dtype)

    @torch.no_grad()
    def sharpen(self, factor: float) -> None:
        """Multiply every distance by ``factor``, so that attention keeps to the nearest."""
        if self.ranker is None:
            self.log_weights.add_(math.log(factor))
        else:
            self.ranker.strength.mul_(factor)

    def nearest_to(
        self, vector: Tensor, known: Tensor | None = None, whole: Tensor | None = None
    ) -> tuple[Tensor, Tensor, RankedExamples]:
        """vector (batch, vector_size), standardised, 0 where unknown → the examples to copy from,
        the tokens of each (batch, nearest, 1 + length) int64 and its score (batch, nearest), which
        is minus its distance where nothing else ranks them; and all that were ranked

        known: (batch, vector_size), 1 or 0, of a memory that has it. whole: ``vector`` with the
        values that are hidden from it. While training, an example is not found by its own vector.
        """
        weights, squares = self._metric(known), self.vectors.square()
        if self.known is not None:
            # Of a value that an example lacks, the deviation is 1: it is one of all.
            squares = torch.where(self.known, squares, 1.0)
        # Minus the squared distance but for a term that all of a row's examples share.
        closeness = 2 * (vector * weights) @ self.vectors - weights @ squares
        if self.training:
            itself = self._is_itself(vector if whole is None else whole)
            closeness = closeness.masked_fill(itself, -torch.inf)
        rows = closeness.topk(self.candidates, dim=1).indices
        if self.ranker is not None:
            rows = rows.topk(self.candidates, dim=1, largest=False).values
        tokens = self.tokens.index_select(0, rows.flatten())
        tokens = tokens.view(-1, self.candidates, self.tokens.shape[1]).long()
        apart = self._apart(vector, rows)
        squared = (apart * apart * weights.unsqueeze(-2)).sum(dim=2)
        # Not zero for an example's own vector: there a square root has no gradient.
        scores = -torch.sqrt(squared + _ITSELF)
        if self.ranker is None or known is None:
            return tokens, scores, RankedExamples(tokens[:, :, 1:], scores)
        scores = self.ranker(scores, apart, vector, known, tokens[:, :, 1:])
        ranked = RankedExamples(tokens[:, :, 1:], scores)
        # Twins by all that is known have equal scores: of these the first, in every runtime.
        places = torch.arange(self.candidates, device=scores.device)
        chosen = (scores - _TIE * places).topk(self.nearest, dim=1).indices
        chosen = chosen.topk(self.nearest, dim=1, largest=False).values
        best = scores.gather(1, chosen)
        tokens = tokens.gather(1, chosen.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        return tokens, self.ranker.strength * best, ranked

    def _metric(self, known: Tensor | None) -> Tensor:
        """What each squared difference is multiplied with: (vector_size,), or of each vector by
        which values it has, (batch, vector_size)"""
        if self.ranker is not None and known is not None:
            return self.ranker.metric(known)
        weights = torch.exp(2 * self.log_weights)
        if known is None:
            return weights
        # As far apart as if all values were known.
        counted = weights * known
        return counted * (weights.sum() / counted.sum(dim=1, keepdim=True).clamp(min=_ITSELF))

    def _apart(self, vector: Tensor, rows: Tensor) -> Tensor:
        """From the examples ``rows`` (batch, count): (batch, count, vector_size)"""
        apart = vector.unsqueeze(1) - _rows_of(self.vectors, rows)
        return apart if self.known is None else torch.where(_rows_of(self.known, rows), apart, 1.0)

    def _is_itself(self, vector: Tensor) -> Tensor:
        """(batch, examples). In full precision whatever a GPU trains in: bfloat16 loses so much of
        a difference of squares that no vector would be near itself.
        """
        with torch.autocast(vector.device.type, enabled=False):
            squared = vector.square().sum(dim=1, keepdim=True) + self.vectors.square().sum(dim=0)
            return squared - 2 * vector @ self.vectors < _ITSELF

    def look_at(
        self, tokens: Tensor, scores: Tensor, features: Tensor, embedded: Tensor
    ) -> RetrievedMemory:
        """What a stream keeps of nearest_to's tokens and scores.

        features (batch * nearest, length, features): of a writer that has read each example up
        to the token before. embedded (batch, nearest, length, embedding): of each token.
        """
        copied = tokens[:, :, 1:]
        read = features.view(*embedded.shape[:3], -1)
        keys = self.key(torch.cat((read, embedded), dim=3))
        scores = scores.unsqueeze(2).expand_as(copied)
        scores = scores.masked_fill(copied == PADDING_ID, _NOTHING)
        return RetrievedMemory(keys.flatten(1, 2), copied.flatten(1), scores.flatten(1))

    def copy(self, logits: Tensor, features: Tensor, memory: RetrievedMemory) -> Tensor:
        """logits (batch, time, vocabulary) of a writer's features (batch, time, features) → those
        with what it copies
        """
        scores = self.query(features) @ memory.keys.transpose(1, 2) + memory.scores.unsqueeze(1)
        share = torch.softmax(scores, dim=2)
        strength = self.strength(torch.cat((features, share @ memory.keys), dim=2))
        tokens = memory.tokens.unsqueeze(1).expand_as(share)
        # In mixed precision the logits are the narrower ones.
        return logits.scatter_add(2, tokens, (share * strength).to(logits.dtype))


def _rows_of(columns: Tensor, rows: Tensor) -> Tensor:
    """columns (size, examples), rows (batch, count) → (batch, count, size)"""
    found = columns.index_select(1, rows.flatten()).T
    return found.reshape(*rows.shape, len(columns))
