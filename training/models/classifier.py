"""Sequence input, single output: one label for a whole text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from bundle.manifest import CLASSIFY
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.layers import length_mask
from training.models.options import RecurrentOptions, check_hidden_recurrence
from training.models.recurrent import RecurrentStack

# Outputs of a stack are a few numbers of [-1, 1] added up, so this never wins a maximum.
_BELOW_ANY_OUTPUT = -1e4


@dataclass(frozen=True)
class ClassifierConfig:
    """dropout: share dropped of the embeddings and of the pooled features while training.
    embedding_dropout: share of the symbols a batch goes without while training.
    """

    architecture: ClassVar[str] = "classifier"
    task: ClassVar[str] = CLASSIFY
    vocabulary_size: int
    labels: int
    embedding_size: int
    recurrent: RecurrentOptions
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    @property
    def longest_text(self) -> None:
        """It reads any number of words."""

    def __post_init__(self) -> None:
        check_hidden_recurrence(
            self.recurrent, "a classifier", "its one output comes after the last step"
        )


class Classifier(nn.Module):
    """Embedding → recurrent stack → maximum over time → linear.

    A maximum does not depend on the order or the number of padded steps, so a text's
    probabilities are the same bits however long its batch-mates are.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = token_embedding(
            config.vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        self.stack = RecurrentStack(config.recurrent, config.embedding_size)
        self.output = nn.Linear(config.recurrent.output_size, config.labels)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time), lengths (batch,) → logits (batch, labels)"""
        return self.output(self.dropout(self.pooled(tokens, lengths)))

    def pooled(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time), lengths (batch,) → what the output reads (batch, features)"""
        features = self.stack.read(self.dropout(self.embedding(tokens)), lengths)
        outside = ~length_mask(tokens, lengths).unsqueeze(2)
        features = features.masked_fill(outside, _BELOW_ANY_OUTPUT)
        return features.amax(dim=1)
