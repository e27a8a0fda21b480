"""Two-sided fill-in: a blank's word from the words to its left and to its right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.manifest import FILL
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.layers import reverse_padded
from training.models.options import DesignInvalid, RecurrentOptions, check_hidden_recurrence
from training.models.recurrent import RecurrentStack


@dataclass(frozen=True)
class FillConfig:
    """candidates: words that are chosen among.
    recurrent: of each of the two sides, so its own ``bidirectional`` is not set.
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

    def __post_init__(self) -> None:
        check_hidden_recurrence(self.recurrent, "a fill-in model", "it has one output")
        if self.recurrent.bidirectional:
            raise DesignInvalid(
                "a fill-in model reads each side towards the blank, and bidirectional layers would "
                "see the blank's own word; leave bidirectional"
            )


class Fill(nn.Module):
    """Two stacks read towards the blank; what both have read is joined by a tanh layer.

    Neither stack ever reads the blank, so training fills every position of a sentence at once.
    """

    def __init__(self, config: FillConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = token_embedding(
            config.vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        one_way = replace(config.recurrent, bidirectional=False)
        self.left = RecurrentStack(one_way, config.embedding_size)
        self.right = RecurrentStack(one_way, config.embedding_size)
        self.combine = nn.Linear(2 * one_way.output_size, config.embedding_size)
        self.output = nn.Linear(config.embedding_size, config.candidates)

    def forward(
        self, left: Tensor, left_lengths: Tensor, right: Tensor, right_lengths: Tensor
    ) -> Tensor:
        """left, right (batch, time) with their lengths (batch,) → logits (batch, candidates)

        left: the begin marker and the words before the blank. right: the end marker and the
        words after the blank from the last to the first, so that both sides end at the blank.
        """
        read = [
            _last(stack(self._embedded(tokens), None, lengths)[0], lengths)
            for stack, tokens, lengths in (
                (self.left, left, left_lengths),
                (self.right, right, right_lengths),
            )
        ]
        return self._choose(*read)

    def everywhere(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time): begin, words, end → logits (batch, time, candidates)

        Position t is filled from what is before and what is after it; the first and last
        positions, which are markers, and what is beyond a row's length mean nothing.
        """
        embedded = self._embedded(tokens)
        left = self.left.read(embedded, lengths)
        right = self.right.read(reverse_padded(embedded, lengths), lengths)
        right = reverse_padded(right, lengths)
        # What was read up to the token before, and down to the token after.
        nothing = torch.zeros_like(left[:, :1])
        before = torch.cat((nothing, left[:, :-1]), dim=1)
        after = torch.cat((right[:, 1:], nothing), dim=1)
        return self._choose(before, after)

    def _embedded(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.embedding(tokens))

    def _choose(self, left: Tensor, right: Tensor) -> Tensor:
        """(…, hidden) of each side → (…, candidates)"""
        joined = self.dropout(torch.cat((left, right), dim=-1))
        return self.output(self.dropout(torch.tanh(self.combine(joined))))


def _last(features: Tensor, lengths: Tensor) -> Tensor:
    """features (batch, time, size) at each row's last step → (batch, size)"""
    place = (lengths - 1).view(-1, 1, 1).expand(-1, 1, features.shape[2])
    return features.gather(1, place).squeeze(1)
