"""A tagger: one label for each token, from one side, from both, or with the labels before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from bundle.manifest import TAG
from bundle.spans import is_legal
from training.models.cells import State
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.layers import Step, length_mask, unroll
from training.models.options import DesignInvalid, RecurrentOptions
from training.models.recurrent import RecurrentStack

Unroll = Callable[[Step, State, tuple[Tensor, ...]], tuple[State, Tensor]]

# Labels are fed back as 1 + their number, so that a state of zeros means: none yet.
NO_LABEL = 0

# Added to the logit of a label that may not come: exp of it is zero in float32.
_ILLEGAL = -1e4


@dataclass(frozen=True)
class TaggerConfig:
    """label_embedding_size: of the label before, where the recurrence reads the output.
    dropout: share dropped of the embeddings and of the last layer's output.
    embedding_dropout: share of the symbols a batch goes without while training.
    legal_spans: whether no label goes on with a span that the last label is not of: of labels in
    BIO, where the output is read.
    """

    architecture: ClassVar[str] = "tagger"
    task: ClassVar[str] = TAG
    vocabulary_size: int
    labels: int
    embedding_size: int
    recurrent: RecurrentOptions
    label_embedding_size: int = 0
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    legal_spans: bool = False

    def __post_init__(self) -> None:
        if self.legal_spans and not self.recurrent.reads_output:
            raise DesignInvalid(
                "legal_spans follows from the last label, which recurrence 'hidden' does not feed "
                "back; leave it"
            )
        if self.recurrent.reads_output and self.label_embedding_size < 1:
            raise DesignInvalid(
                f"recurrence {self.recurrent.recurrence!r} feeds the last label back; "
                "label_embedding_size is at least 1"
            )
        if not self.recurrent.reads_output and self.label_embedding_size:
            raise DesignInvalid(
                "recurrence 'hidden' feeds no label back; leave label_embedding_size at 0"
            )

    @property
    def streams(self) -> bool:
        """Whether a token can be labelled before the next one is known."""
        return not self.recurrent.bidirectional


class Tagger(nn.Module):
    """Embedding (beside the last label's) → recurrent stack → linear.

    illegal: (1 + labels, labels), by what stands before, 0 or what forbids a label.

    Its state between two tokens is its stack's, after the last label (batch,), as 1 + its
    number, where that is fed back.
    """

    illegal: Tensor

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = token_embedding(
            config.vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        if config.recurrent.reads_output:
            self.label_embedding = nn.Embedding(config.labels + 1, config.label_embedding_size)
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        entering = config.embedding_size + config.label_embedding_size
        self.stack = RecurrentStack(config.recurrent, entering)
        self.output = nn.Linear(config.recurrent.output_size, config.labels)
        if config.legal_spans:
            self.register_buffer("illegal", torch.zeros(config.labels + 1, config.labels))

    def forbid(self, labels: Sequence[str]) -> None:
        """Let none of ``labels``, in their order, come where BIO has it not.

        It holds for step() and tag(); training hides labels that are fed back.
        """
        rows = [[not is_legal(before, label) for label in labels] for before in ("", *labels)]
        self.illegal.copy_(torch.tensor(rows) * _ILLEGAL)

    def forward(self, tokens: Tensor, lengths: Tensor, previous: Tensor | None = None) -> Tensor:
        """tokens (batch, time), lengths (batch,) → logits (batch, time, labels)

        previous: (batch, time) what stands before each token: 1 + its true label, NO_LABEL at
        the start. Needed exactly where the output is fed back: teacher forcing.
        """
        features = self.stack.read(self._entering(tokens, previous), lengths)
        return self.output(self.dropout(features))

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """token (batch,) → its logits (batch, labels), state"""
        if not self.config.recurrent.reads_output:
            features, after = self.stack.step(self._entering(token, None), state)
            return self.output(self.dropout(features)), after
        previous, *carried = state
        features, after = self.stack.step(self._entering(token, previous), tuple(carried))
        logits = self.output(self.dropout(features))
        if self.config.legal_spans:
            logits = logits + embedding(previous, self.illegal)
        return logits, (logits.argmax(dim=1) + 1, *after)

    def tag(self, tokens: Tensor, lengths: Tensor, unroll: Unroll = unroll) -> Tensor:
        """As forward, but it is its own likeliest label that it reads at the next token.

        unroll: how the step runs along time.
        """
        if not self.config.recurrent.reads_output:
            return self(tokens, lengths)

        def step(carry: State, inputs: State) -> tuple[State, Tensor]:
            logits, after = self.step(inputs[0], carry)
            return after, logits

        _, logits = unroll(step, self.first_state(tokens), (tokens.transpose(0, 1),))
        return logits.transpose(0, 1) * length_mask(tokens, lengths).unsqueeze(2)

    def first_state(self, tokens: Tensor) -> State:
        """The state before the first of ``tokens`` (batch, …)."""
        carried = self.stack.zero_state(len(tokens), self.output.bias)
        if not self.config.recurrent.reads_output:
            return carried
        return (torch.full_like(tokens[:, 0], NO_LABEL), *carried)

    def _entering(self, tokens: Tensor, previous: Tensor | None) -> Tensor:
        """tokens (batch, …), previous likewise → (batch, …, size)"""
        embedded = self.embedding(tokens)
        if previous is not None:
            embedded = torch.cat((embedded, self.label_embedding(previous)), dim=-1)
        return self.dropout(embedded)
