"""Sequence to sequence: one sequence in, another of its own length out.

Without attention all that the decoder knows of the source is one state (Sutskever, Vinyals and
Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078): a lossy summary of fixed size.

Attention is Luong's "general" score over the decoder's output (Luong, Pham and Manning 2015,
arXiv:1508.04025, equations 5 to 8), without input feeding: the decoder's recurrence then does
not wait for the attention, so training and scoring run it as one sequence operator.

Its scores may be divided by the root of their width (Vaswani et al. 2017, arXiv:1706.03762, section
3.2.1). A score is a sum over the width: with a wide or deep encoder the first are so far apart that
the softmax looks at one place whatever is said, where its gradient is close to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bundle.manifest import SEQ2SEQ
from training.models.cells import State
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.layers import length_mask
from training.models.options import (
    RecurrentOptions,
    check_hidden_recurrence,
    check_one_direction,
    check_tied,
)
from training.models.recurrent import RecurrentStack

# Added to the score of a memory position that is padding: exp of it is zero in float32.
_MASKED = -1e9


@dataclass(frozen=True)
class Seq2SeqConfig:
    """source_limit: the longest source; every memory is padded to it, so a row's attention
    is the same sum whatever other rows its batch holds.

    recurrent: the decoder's layers; the encoder has the same, in both directions.
    attention: whether the decoder looks back at the source at each step.
    scaled: whether the attention's scores are divided by the root of their width.
    embedding_dropout: share of the symbols a batch goes without while training.
    tied: whether the target's symbols are said by the vectors that they are read by.
    """

    architecture: ClassVar[str] = "seq2seq"
    task: ClassVar[str] = SEQ2SEQ
    source_vocabulary_size: int
    target_vocabulary_size: int
    embedding_size: int
    recurrent: RecurrentOptions
    source_limit: int
    dropout: float = 0.0
    attention: bool = True
    embedding_dropout: float = 0.0
    tied: bool = False
    scaled: bool = False

    def __post_init__(self) -> None:
        check_one_direction(self.recurrent, "a decoder", "what it would read is not made yet")
        check_hidden_recurrence(
            self.recurrent, "a decoder", "its hidden state is what the encoder hands over"
        )
        if self.tied:
            check_tied(self.embedding_size, self.recurrent)


class Seq2Seq(nn.Module):
    """A decoder's state is (memory, memory_mask) of the encoder, then its stack's tensors;
    without attention the stack's tensors alone.

    memory: (batch, source_limit, 2 * hidden), zero after the source's length.
    memory_mask: (batch, source_limit), 1 where the source is, 0 where padding is.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        both = replace(config.recurrent, bidirectional=True)
        width = config.recurrent.output_size
        self.source_embedding = token_embedding(
            config.source_vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.target_embedding = token_embedding(
            config.target_vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        self.encoder = RecurrentStack(both, config.embedding_size)
        self.bridges = nn.ModuleList(
            nn.Linear(both.output_size, width) for _ in range(both.layers * both.tensors_per_layer)
        )
        self.decoder = RecurrentStack(config.recurrent, config.embedding_size)
        if config.attention:
            self.query = nn.Linear(width, both.output_size, bias=False)
            self.combine = nn.Linear(width + both.output_size, width)
        self.output = nn.Linear(width, config.target_vocabulary_size)
        if config.tied:
            self.output.weight = self.target_embedding.weight

    def encode(self, source: Tensor, lengths: Tensor | None) -> State:
        """source (batch, time ≤ source_limit), lengths (batch,) → the decoder's first state

        lengths: None where every row is full, which takes less time than rows that say so.

        The encoder's final states become the decoder's first through one tanh layer each.
        """
        memory, final = self.encoder(self.dropout(self.source_embedding(source)), None, lengths)
        first = tuple(
            torch.tanh(bridge(part)) for bridge, part in zip(self.bridges, final, strict=True)
        )
        if not self.config.attention:
            return first
        if lengths is None:
            lengths = source.new_full((len(source),), source.shape[1])
        mask = length_mask(source, lengths)
        missing = self.config.source_limit - source.shape[1]
        # The MLP after the last layer makes something of padding too.
        memory = memory.masked_fill(~mask.unsqueeze(2), 0.0)
        return (pad(memory, (0, 0, 0, missing)), pad(mask.to(memory.dtype), (0, missing)), *first)

    def attend(self, features: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Weights (batch, time, source_limit) of each decoder output over the memory."""
        query = self.query(features)
        return attention(query, memory, memory_mask, query_scale(self.config))

    def align(self, tokens: Tensor, state: State) -> Tensor:
        """tokens (batch, time) → how much each next token looks at each place of the source,
        (batch, time, source_limit); for pictures.
        """
        looked_at, carried = self._parts(state)
        features, _ = self.decoder(self.target_embedding(tokens), carried)
        return self.attend(features, *looked_at)

    def forward(
        self, tokens: Tensor, state: State, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (batch, time) → logits of each next token (batch, time, vocabulary), state"""
        looked_at, carried = self._parts(state)
        embedded = self.dropout(self.target_embedding(tokens))
        features, after = self.decoder(embedded, carried, lengths)
        return self._logits(features, looked_at), (*looked_at, *after)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """token (batch,) → logits of the next one (batch, vocabulary), state"""
        looked_at, carried = self._parts(state)
        features, after = self.decoder.step(self.dropout(self.target_embedding(token)), carried)
        return self._logits(features.unsqueeze(1), looked_at).squeeze(1), (*looked_at, *after)

    def step_with_attention(self, token: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """As step(), and how much it looks at each place of the source (batch, source_limit)."""
        (memory, memory_mask), carried = self._parts(state)
        embedded = self.dropout(self.target_embedding(token))
        features, after = self.decoder.step(embedded, carried)
        features = self.dropout(features.unsqueeze(1))
        weights = self.attend(features, memory, memory_mask)
        logits = self._attended(features, weights @ memory)
        return logits.squeeze(1), (memory, memory_mask, *after), weights.squeeze(1)

    def _parts(self, state: State) -> tuple[State, State]:
        """What attention looks at, and what the decoder carries."""
        count = 2 if self.config.attention else 0
        return state[:count], state[count:]

    def _logits(self, features: Tensor, looked_at: State) -> Tensor:
        """features (batch, time, hidden) → (batch, time, vocabulary)"""
        features = self.dropout(features)
        if not looked_at:
            return self.output(features)
        memory, memory_mask = looked_at
        return self._attended(features, self.attend(features, memory, memory_mask) @ memory)

    def _attended(self, features: Tensor, context: Tensor) -> Tensor:
        """features (batch, time, hidden), the memory's average → (batch, time, vocabulary)"""
        combined = torch.tanh(self.combine(torch.cat((features, context), dim=2)))
        return self.output(self.dropout(combined))


def query_scale(config: Seq2SeqConfig) -> float:
    """What a query is multiplied by before it is compared with the memory."""
    if not config.scaled:
        return 1.0
    return 1.0 / math.sqrt(2 * config.recurrent.output_size)


def attention(query: Tensor, memory: Tensor, memory_mask: Tensor, scale: float = 1.0) -> Tensor:
    """query (batch, time, 2 * hidden) → its weights (batch, time, source_limit) over the memory

    scale: of the scores; see ``query_scale``.
    """
    if scale != 1.0:
        query = query * scale
    scores = query @ memory.transpose(1, 2)
    return torch.softmax(scores + (memory_mask.unsqueeze(1) - 1) * -_MASKED, dim=2)
