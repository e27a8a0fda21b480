"""Which of the examples nearest to a vector are most like what is to be written for it.

Distance is where this begins. A network corrects it by how each value differs (as relevance is
learned in neighbourhood component analysis: Goldberger et al. 2004), and examples that agree with
the likely others gain (minimum Bayes risk: Kumar and Byrne 2004, N04-1022, equation 6, with the F1
of tokens for the gain). Training maximises the F1 that is expected of the choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.vocabulary import PADDING_ID

# How much farther apart examples lie, before training, than their values' deviations say.
_SHARPNESS = 3.0

# Differences beyond so many deviations are all alike to the network.
_FARTHEST = 2.0


@dataclass(frozen=True)
class RankedExamples:
    """tokens: (batch, candidates, length) int64, padding for what is not to be copied.
    scores: (batch, candidates), of which the softmax is the chance of each to be the best.
    """

    tokens: Tensor
    scores: Tensor

    def expected_overlap(self, targets: Tensor) -> Tensor:
        """targets (batch, time) of what was written → (batch,) the F1 of tokens expected of an
        example, and half as much again where its first token is right"""
        written = targets.unsqueeze(1)
        gain = token_overlap(self.tokens, written) + 0.5 * same_first(self.tokens, written)
        return (torch.softmax(self.scores, dim=1) * gain.squeeze(2)).sum(dim=1)


def token_overlap(some: Tensor, others: Tensor) -> Tensor:
    """some (batch, m, length), others (batch, n, time) → (batch, m, n), the F1 of their tokens

    A token that comes twice in both counts four times, which names and short texts hardly have.
    """
    counts = [(tokens != PADDING_ID).to(torch.float32).sum(dim=2) for tokens in (some, others)]
    sizes = counts[0].unsqueeze(2) + counts[1].unsqueeze(1)
    # Minus one is nowhere in the others, so padding is like nothing.
    sought = some.masked_fill(some == PADDING_ID, -1).flatten(1).unsqueeze(2)
    alike = (sought == others.flatten(1).unsqueeze(1)).to(torch.float32)
    shared = alike.view(*some.shape, *others.shape[1:]).sum(dim=4).sum(dim=2)
    return 2 * shared / sizes.clamp(min=1)


def same_first(some: Tensor, others: Tensor) -> Tensor:
    """As token_overlap: 1 where the first tokens are the same."""
    first, other = some[:, :, 0].unsqueeze(2), others[:, :, 0].unsqueeze(1)
    return ((first == other) & (first != PADDING_ID)).to(torch.float32)


class ExampleRanker(nn.Module):
    """weights, weights_of_known: (vector_size,) and (vector_size, vector_size), how much each value
    counts for the distance, and how that depends on which are known. agreement: (2,) what the
    expected F1, and the chance of the first token, add to an example's score. strength: of the
    scores where tokens are copied.
    """

    def __init__(self, vector_size: int, size: int, dropout: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((vector_size,), _SHARPNESS))
        self.weights_of_known = nn.Linear(vector_size, vector_size, bias=False)
        nn.init.zeros_(self.weights_of_known.weight)
        self.reader = nn.Linear(4 * vector_size, size)
        self.deeper = nn.Linear(size, size)
        self.output = nn.Linear(size, 1)
        nn.init.zeros_(self.output.weight)
        self.dropout = nn.Dropout(dropout)
        self.agreement = nn.Parameter(torch.zeros(2))
        self.strength = nn.Parameter(torch.ones(()))

    def metric(self, known: Tensor) -> Tensor:
        """known (batch, vector_size), 1 or 0 → what each squared difference is multiplied with"""
        weights: Tensor = self.weights + self.weights_of_known(known)
        return weights.square() * known

    def forward(
        self, scores: Tensor, apart: Tensor, vector: Tensor, known: Tensor, tokens: Tensor
    ) -> Tensor:
        """scores (batch, candidates), minus the distances → how likely each example is the best

        apart: (batch, candidates, vector_size), each value's difference. vector, known: (batch,
        vector_size), standardised, 0 where unknown. tokens: (batch, candidates, length).
        """
        asked = torch.cat((vector, known), dim=1).unsqueeze(1)
        apart = apart.clamp(-_FARTHEST, _FARTHEST) * known.unsqueeze(1)
        asked = asked.expand(-1, apart.shape[1], -1)
        facts = torch.cat((apart, apart.abs(), asked), dim=2)
        read = torch.relu(self.deeper(torch.relu(self.reader(facts))))
        scores = scores + self.output(self.dropout(read)).squeeze(2)
        chance = torch.softmax(scores, dim=1).unsqueeze(2)
        overlap = token_overlap(tokens, tokens) @ chance
        first = same_first(tokens, tokens) @ chance
        gained: Tensor = torch.cat((overlap, first), dim=2) @ self.agreement
        return scores + gained
