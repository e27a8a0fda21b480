"""Sequence to sequence with attention: one sequence in, another of its own length out.

Attention is Luong's "general" score over the decoder's output (Luong, Pham and Manning 2015,
arXiv:1508.04025, equations 5 to 8), without input feeding: the decoder's recurrence then does
not wait for the attention, so training and scoring run it as one sequence operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bundle.vocabulary import PADDING_ID
from training.models.classifier import positions
from training.models.recurrent import RecurrentOptions, RecurrentStack, State

# Added to the score of a memory position that is padding: exp of it is zero in float32.
_MASKED = -1e9


@dataclass(frozen=True)
class Seq2SeqConfig:
    """source_limit: the longest source; every memory is padded to it, so a row's attention
    is the same sum whatever other rows its batch holds.

    recurrent: the decoder's layers; the encoder has the same, in both directions.
    """

    architecture: ClassVar[str] = "seq2seq"
    source_vocabulary_size: int
    target_vocabulary_size: int
    embedding_size: int
    recurrent: RecurrentOptions
    source_limit: int
    dropout: float = 0.0


class Seq2Seq(nn.Module):
    """A decoder's state is (memory, memory_mask) of the encoder, then its stack's tensors.

    memory: (batch, source_limit, 2 * hidden), zero after the source's length.
    memory_mask: (batch, source_limit), 1 where the source is, 0 where padding is.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        both = replace(config.recurrent, bidirectional=True)
        width = config.recurrent.output_size
        self.source_embedding = nn.Embedding(
            config.source_vocabulary_size, config.embedding_size, PADDING_ID
        )
        self.target_embedding = nn.Embedding(
            config.target_vocabulary_size, config.embedding_size, PADDING_ID
        )
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = RecurrentStack(both, config.embedding_size)
        self.bridges = nn.ModuleList(
            nn.Linear(both.output_size, width) for _ in range(both.layers * both.tensors_per_layer)
        )
        self.decoder = RecurrentStack(config.recurrent, config.embedding_size)
        self.query = nn.Linear(width, both.output_size, bias=False)
        self.combine = nn.Linear(width + both.output_size, width)
        self.output = nn.Linear(width, config.target_vocabulary_size)

    def encode(self, source: Tensor, lengths: Tensor) -> State:
        """source (batch, time ≤ source_limit), lengths (batch,) → the decoder's first state

        The encoder's final states become the decoder's first through one tanh layer each.
        """
        memory, final = self.encoder(self.dropout(self.source_embedding(source)), None, lengths)
        inside = (positions(source) < lengths.unsqueeze(1)).to(memory.dtype)
        missing = self.config.source_limit - source.shape[1]
        first = (torch.tanh(bridge(part)) for bridge, part in zip(self.bridges, final, strict=True))
        return (pad(memory, (0, 0, 0, missing)), pad(inside, (0, missing)), *first)

    def attend(self, features: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Weights (batch, time, source_limit) of each decoder output over the memory."""
        return attention(self.query(features), memory, memory_mask)

    def forward(
        self, tokens: Tensor, state: State, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (batch, time) → logits of each next token (batch, time, vocabulary), state"""
        memory, memory_mask, *carried = state
        embedded = self.dropout(self.target_embedding(tokens))
        features, after = self.decoder(embedded, tuple(carried), lengths)
        features = self.dropout(features)
        context = self.attend(features, memory, memory_mask) @ memory
        combined = torch.tanh(self.combine(torch.cat((features, context), dim=2)))
        return self.output(self.dropout(combined)), (memory, memory_mask, *after)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """token (batch,) → logits of the next one (batch, vocabulary), state"""
        logits, state = self(token.unsqueeze(1), state)
        return logits.squeeze(1), state


def attention(query: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
    """query (batch, time, 2 * hidden) → its weights (batch, time, source_limit) over the memory"""
    scores = query @ memory.transpose(1, 2)
    return torch.softmax(scores + (memory_mask.unsqueeze(1) - 1) * -_MASKED, dim=2)
