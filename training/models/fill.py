"""Two-sided fill-in: a blank's word from the words to its left and to its right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.manifest import FILL
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.layers import length_mask, reverse_padded
from training.models.options import DesignInvalid, RecurrentOptions, check_hidden_recurrence
from training.models.recurrent import RecurrentStack


@dataclass(frozen=True)
class FillConfig:
    """candidates: words that are chosen among.
    recurrent: of each of the two sides, so its own ``bidirectional`` is not set.
    combined_size: of the tanh layer over both sides, which a linear layer then maps to
        embedding_size; 0 for embedding_size, without that layer.
    bag: whether the words of both sides are read in no order as well.
    dropout: share dropped of the embeddings and of what the sides read.
    embedding_dropout: share of the symbols a batch goes without while training.
    """

    architecture: ClassVar[str] = "fill"
    task: ClassVar[str] = FILL
    vocabulary_size: int
    candidates: int
    embedding_size: int
    recurrent: RecurrentOptions
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    combined_size: int = 0
    bag: bool = False

    def __post_init__(self) -> None:
        check_hidden_recurrence(self.recurrent, "a fill-in model", "it has one output")
        if self.recurrent.bidirectional:
            raise DesignInvalid(
                "a fill-in model reads each side towards the blank, and bidirectional layers would "
                "see the blank's own word; leave bidirectional"
            )
        if self.combined_size < 0:
            raise DesignInvalid(f"combined_size is {self.combined_size}; choose 0 or more")


class Fill(nn.Module):
    """Two stacks read towards the blank; what both have read is joined by a tanh layer.

    Neither stack ever reads the blank, so training fills every position of a sentence at once.
    A bag is the mean of all embeddings but the blank's, each weighed by the sigmoid of its token's
    importance: what a sentence is about, however far from the blank, goes to the output by a linear
    layer beside.
    """

    def __init__(self, config: FillConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding_size
        self.embedding = token_embedding(config.vocabulary_size, size, config.embedding_dropout)
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        one_way = replace(config.recurrent, bidirectional=False)
        self.left = RecurrentStack(one_way, size)
        self.right = RecurrentStack(one_way, size)
        joined = 2 * one_way.output_size + (size if config.bag else 0)
        self.combine = nn.Linear(joined, config.combined_size or size)
        if config.combined_size:
            self.project = nn.Linear(config.combined_size, size)
        if config.bag:
            self.importance = nn.Embedding(config.vocabulary_size, 1)
            nn.init.zeros_(self.importance.weight)
            self.topic = nn.Linear(size, size, bias=False)
        self.output = nn.Linear(size, config.candidates)

    def forward(
        self, left: Tensor, left_lengths: Tensor, right: Tensor, right_lengths: Tensor
    ) -> Tensor:
        """left, right (batch, time) with their lengths (batch,) → logits (batch, candidates)

        left: the begin marker and the words before the blank. right: the end marker and the
        words after the blank from the last to the first, so that both sides end at the blank.
        """
        before, *bag = self._side(self.left, left, left_lengths)
        after, *more = self._side(self.right, right, right_lengths)
        if not self.config.bag:
            return self.output(self._combined(before, after))
        words, weights = (a + b for a, b in zip(bag, more, strict=True))
        return self.output(self._combined(before, after, words / weights))

    def everywhere(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time): begin, words, end → logits (batch, time, candidates)

        Position t is filled from what is before and what is after it; the first and last
        positions, which are markers, and what is beyond a row's length mean nothing.
        """
        return self.output(self._combined(*self._sides(tokens, lengths)))

    def read_at(self, tokens: Tensor, lengths: Tensor, blanks: Tensor) -> Tensor:
        """blanks (batch, time) bool → (blanks, embedding_size) of each, what the output reads."""
        return self._combined(*(side[blanks] for side in self._sides(tokens, lengths)))

    def _side(self, stack: RecurrentStack, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """What a side has read at its end, (batch, size), and of a bag the sum of its words and of
        their weights.
        """
        embedded = self._embedded(tokens)
        read = _last(stack(embedded, None, lengths)[0], lengths)
        if not self.config.bag:
            return (read,)
        # A running sum takes step after step, whatever the padding: a row has the same bits beside
        # longer ones. A sum at once does not.
        parts = self._weighed(embedded, tokens, lengths)
        return read, *(_last(part.cumsum(dim=1), lengths) for part in parts)

    def _sides(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """What was read up to the token before, and down to the token after, and the bag of all
        others: (batch, time, size) each.
        """
        embedded = self._embedded(tokens)
        left = self.left.read(embedded, lengths)
        right = self.right.read(reverse_padded(embedded, lengths), lengths)
        right = reverse_padded(right, lengths)
        nothing = torch.zeros_like(left[:, :1])
        before = torch.cat((nothing, left[:, :-1]), dim=1)
        after = torch.cat((right[:, 1:], nothing), dim=1)
        if not self.config.bag:
            return before, after
        words, weights = self._weighed(embedded, tokens, lengths)
        others = words.sum(dim=1, keepdim=True) - words
        return before, after, others / (weights.sum(dim=1, keepdim=True) - weights)

    def _embedded(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.embedding(tokens))

    def _weighed(self, embedded: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """embedded (batch, time, size) times its weights, and the weights (batch, time, 1), 0 after
        a row's length.
        """
        weights = torch.sigmoid(self.importance(tokens))
        weights = weights * length_mask(tokens, lengths).unsqueeze(2)
        return embedded * weights, weights

    def _combined(self, left: Tensor, right: Tensor, bag: Tensor | None = None) -> Tensor:
        """(…, size) of each side, and of the bag → (…, embedding_size)"""
        sides = (left, right) if bag is None else (left, right, bag)
        joined = self.dropout(torch.cat(sides, dim=-1))
        combined = self.dropout(torch.tanh(self.combine(joined)))
        if self.config.combined_size:
            combined = self.project(combined)
        return combined if bag is None else combined + self.topic(bag)


def _last(features: Tensor, lengths: Tensor) -> Tensor:
    """features (batch, time, size) at each row's last step → (batch, size)"""
    place = (lengths - 1).view(-1, 1, 1).expand(-1, 1, features.shape[2])
    return features.gather(1, place).squeeze(1)
