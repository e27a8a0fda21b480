"""Vector to sequence: one vector of fixed size conditions every step of a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.cells import Mlp, State
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.options import (
    HIDDEN_AND_OUTPUT,
    OptionInvalid,
    RecurrentOptions,
    check_one_direction,
)
from training.models.recurrent import RecurrentStack


@dataclass(frozen=True)
class VectorToSequenceConfig:
    """vector_size: values of the vector. condition_size: of what the steps read of it.
    dropout: share dropped of the embeddings, the condition and the last layer's output.
    embedding_dropout: share of the symbols a batch goes without while training.
    reader_mlp: tanh layers between the first one over the vector and the condition.
    noise: deviation of what is added to each standardised value while training.
    """

    architecture: ClassVar[str] = "vec2seq"
    vector_size: int
    vocabulary_size: int
    embedding_size: int
    condition_size: int
    recurrent: RecurrentOptions
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    reader_mlp: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_one_direction(self.recurrent, "a generator", "what it would read is not made yet")
        if self.recurrent.recurrence == HIDDEN_AND_OUTPUT:
            raise OptionInvalid(
                "what is made from a vector is its own input already, so recurrence 'hidden' is "
                "'hidden_and_output'; choose 'hidden'"
            )


class VectorToSequence(nn.Module):
    """Its state is the condition (batch, condition_size), made once, then its stack's tensors.

    The condition stands beside each step's input, which is a term R·x in the sum that makes
    the hidden units (Goodfellow, Bengio and Courville 2016, section 10.2.4).

    mean, scale: (vector_size,) of the values' fourth roots in training, so that the model takes
    values in their own units.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: VectorToSequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.vector_size))
        self.register_buffer("scale", torch.ones(config.vector_size))
        self.reader = nn.Linear(config.vector_size, config.condition_size)
        self.deeper = Mlp(config.condition_size, config.reader_mlp, skip=True)
        self.embedding = token_embedding(
            config.vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        entering = config.embedding_size + config.condition_size
        self.stack = RecurrentStack(config.recurrent, entering)
        self.output = nn.Linear(config.recurrent.output_size, config.vocabulary_size)

    def standardise(self, vectors: Tensor) -> None:
        """Take mean and scale from ``vectors`` (examples, vector_size) of values at least 0."""
        roots = _compressed(vectors)
        self.mean.copy_(roots.mean(dim=0))
        spread = roots.std(dim=0)
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))

    def encode(self, vector: Tensor) -> State:
        """vector (batch, vector_size), values at least 0 → the first state"""
        standard = (_compressed(vector) - self.mean) / self.scale
        if self.training and self.config.noise:
            standard = standard + self.config.noise * torch.randn_like(standard)
        condition = self.deeper(torch.tanh(self.reader(self.dropout(standard))))
        return (condition, *self.stack.zero_state(len(vector), condition))

    def forward(
        self, tokens: Tensor, state: State, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (batch, time) → logits of each next token (batch, time, vocabulary), state"""
        condition, *carried = state
        beside = condition.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        entering = torch.cat((self.dropout(self.embedding(tokens)), beside), dim=2)
        features, after = self.stack(entering, tuple(carried), lengths)
        return self.output(self.dropout(features)), (condition, *after)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """token (batch,) → logits of the next one (batch, vocabulary), state"""
        condition, *carried = state
        entering = torch.cat((self.dropout(self.embedding(token)), condition), dim=1)
        features, after = self.stack.step(entering, tuple(carried))
        return self.output(self.dropout(features)), (condition, *after)


def _compressed(values: Tensor) -> Tensor:
    """The fourth root of values that range over decades (a power transform: Box and Cox 1964).

    A logarithm would do as well, but onnxruntime computes it otherwise at the end of an array
    than in its middle, so a row's bits would depend on its batch; a square root is exact.
    """
    return torch.sqrt(torch.sqrt(values))
