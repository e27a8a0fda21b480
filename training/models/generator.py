"""A generator: the next symbol from the symbols so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from bundle.manifest import GENERATE
from training.models.cells import State
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.options import (
    HIDDEN_AND_OUTPUT,
    DesignInvalid,
    RecurrentOptions,
    check_one_direction,
    check_tied,
)
from training.models.recurrent import RecurrentStack


@dataclass(frozen=True)
class GeneratorConfig:
    """A generator's input is its own last output, so that recurrence ``output`` leaves it that
    and no more: the distribution of a token then depends on the token before it alone.

    dropout: share dropped of the embeddings and of the last layer's output.
    embedding_dropout: share of the symbols a batch goes without while training.
    tied: whether symbols are said by the vectors that they are read by.
    """

    architecture: ClassVar[str] = "generator"
    task: ClassVar[str] = GENERATE
    vocabulary_size: int
    embedding_size: int
    recurrent: RecurrentOptions
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    tied: bool = False

    def __post_init__(self) -> None:
        check_one_direction(self.recurrent, "a generator", "what it would read is not made yet")
        if self.recurrent.recurrence == HIDDEN_AND_OUTPUT:
            raise DesignInvalid(
                "a generator's input is its last output already, so recurrence 'hidden' is "
                "'hidden_and_output'; choose 'hidden'"
            )
        if self.tied:
            check_tied(self.embedding_size, self.recurrent)


class Generator(nn.Module):
    """Embedding → recurrent stack → linear. Training unrolls it, a step is time 1."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = token_embedding(
            config.vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        self.stack = RecurrentStack(config.recurrent, config.embedding_size)
        self.output = nn.Linear(config.recurrent.output_size, config.vocabulary_size)
        if config.tied:
            self.output.weight = self.embedding.weight

    def read(
        self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (batch, time) → outputs of the last layer (batch, time, hidden), state"""
        return self.stack(self.dropout(self.embedding(tokens)), state, lengths)

    def forward(
        self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (batch, time) → logits of each next token (batch, time, vocabulary), state"""
        features, state = self.read(tokens, state, lengths)
        return self.output(self.dropout(features)), state

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """token (batch,) → logits of the next one (batch, vocabulary), state"""
        features, state = self.stack.step(self.dropout(self.embedding(token)), state)
        return self.output(self.dropout(features)), state
