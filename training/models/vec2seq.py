"""Vector to sequence: one vector of fixed size conditions every step of a generator.

With examples it also copies from what training wrote for the nearest vectors
(training/models/retrieval_copy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.manifest import VEC2SEQ
from training.models.cells import Mlp, State
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.options import (
    HIDDEN_AND_OUTPUT,
    DesignInvalid,
    RecurrentOptions,
    check_one_direction,
)
from training.models.recurrent import RecurrentStack
from training.models.retrieval_copy import Examples, RetrievedMemory


@dataclass(frozen=True)
class VectorToSequenceConfig:
    """vector_size: values of the vector. condition_size: of what the steps read of it.
    dropout: share dropped of the embeddings, the condition and the last layer's output.
    embedding_dropout: share of the symbols a batch goes without while training.
    reader_mlp: tanh layers between the first one over the vector and the condition.
    noise: deviation of what is added to each standardised value while training.
    condition_dropout: share of the condition dropped while training.
    examples: of training that are remembered to be copied from, 0 for none; example_tokens: of
    each at most, its end marker counted. nearest: examples that a vector is written from.
    key_size: numbers that each of their tokens is found by.
    signed: whether values may lie below 0.
    """

    architecture: ClassVar[str] = "vec2seq"
    task: ClassVar[str] = VEC2SEQ
    vector_size: int
    vocabulary_size: int
    embedding_size: int
    condition_size: int
    recurrent: RecurrentOptions
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    reader_mlp: int = 0
    noise: float = 0.0
    condition_dropout: float = 0.0
    examples: int = 0
    example_tokens: int = 0
    nearest: int = 0
    key_size: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        memory = (self.examples, self.example_tokens, self.nearest, self.key_size)
        if any(memory) and (min(memory) < 1 or self.nearest >= self.examples):
            raise DesignInvalid(
                "examples, example_tokens, nearest and key_size are all 0 or all given, nearest "
                f"below examples; they are {memory}"
            )
        check_one_direction(self.recurrent, "a generator", "what it would read is not made yet")
        if self.recurrent.recurrence == HIDDEN_AND_OUTPUT:
            raise DesignInvalid(
                "what is made from a vector is its own input already, so recurrence 'hidden' is "
                "'hidden_and_output'; choose 'hidden'"
            )


class VectorToSequence(nn.Module):
    """Its state is the condition (batch, condition_size), made once, then its stack's tensors;
    with examples what is remembered (keys, tokens, scores: Remembered) stands between them.

    The condition stands beside each step's input, which is a term R·x in the sum that makes
    the hidden units (Goodfellow, Bengio and Courville 2016, section 10.2.4).

    mean, scale: (vector_size,) of the compressed values in training, so that the model takes
    values in their own units. softness: (vector_size,) their mean size, of a signed model alone.
    """

    mean: Tensor
    scale: Tensor
    softness: Tensor | None

    def __init__(self, config: VectorToSequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.vector_size))
        self.register_buffer("scale", torch.ones(config.vector_size))
        self.register_buffer("softness", torch.ones(config.vector_size) if config.signed else None)
        self.reader = nn.Linear(config.vector_size, config.condition_size)
        self.deeper = Mlp(config.condition_size, config.reader_mlp, skip=True)
        self.embedding = token_embedding(
            config.vocabulary_size, config.embedding_size, config.embedding_dropout
        )
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        entering = config.embedding_size + config.condition_size
        self.stack = RecurrentStack(config.recurrent, entering)
        self.output = nn.Linear(config.recurrent.output_size, config.vocabulary_size)
        self.condition_dropout = make_dropout(config.condition_dropout, False)
        self.examples = None
        if config.examples:
            self.examples = Examples(
                config.examples,
                config.example_tokens,
                config.nearest,
                config.key_size,
                config.vector_size,
                config.embedding_size,
                config.recurrent.output_size,
                config.vocabulary_size,
            )

    def standardise(self, vectors: Tensor) -> None:
        """Take mean, scale and softness from ``vectors`` (examples, vector_size), of values at
        least 0 unless the model is signed."""
        if self.softness is not None:
            size = vectors.abs().mean(dim=0)
            self.softness.copy_(torch.where(size > 0, size, 1.0))
        compressed = self._compressed(vectors)
        self.mean.copy_(compressed.mean(dim=0))
        spread = compressed.std(dim=0)
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))

    def remember(self, vectors: Tensor, begin_id: int, sequences: Sequence[Sequence[int]]) -> None:
        """Fill the memory: vectors (examples, vector_size) as they are given to ``encode``, no
        two alike; of each the tokens that were written for it, padding for those not to be
        copied. The configuration says how many there are.
        """
        assert self.examples is not None, "the configuration has no examples"
        self.examples.remember(self._standard(vectors), begin_id, sequences)
        self.config = replace(self.config, examples=len(vectors))

    def sharpen(self, factor: float) -> None:
        """Multiply the distances of the examples by ``factor``; above 1 keeps to the nearest."""
        assert self.examples is not None, "the configuration has no examples"
        self.examples.sharpen(factor)

    def encode(self, vector: Tensor) -> State:
        """vector (batch, vector_size), values at least 0 unless signed → the first state"""
        standard = self._standard(vector)
        noisy = standard
        if self.training and self.config.noise:
            noisy = standard + self.config.noise * torch.randn_like(standard)
        condition = self.deeper(torch.tanh(self.reader(self.dropout(noisy))))
        condition = self.condition_dropout(condition)
        remembered = self._look_up(standard)
        return (condition, *remembered, *self.stack.zero_state(len(vector), condition))

    def forward(
        self, tokens: Tensor, state: State, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (batch, time) → logits of each next token (batch, time, vocabulary), state"""
        fixed, carried = self._parts(state)
        entering = self._entering(tokens, fixed[0])
        features, after = self.stack(entering, carried, lengths)
        return self._logits(features, fixed), (*fixed, *after)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """token (batch,) → logits of the next one (batch, vocabulary), state"""
        fixed, carried = self._parts(state)
        entering = torch.cat((self.dropout(self.embedding(token)), fixed[0]), dim=1)
        features, after = self.stack.step(entering, carried)
        return self._logits(features.unsqueeze(1), fixed).squeeze(1), (*fixed, *after)

    def _parts(self, state: State) -> tuple[State, State]:
        """What a stream keeps, and what it carries."""
        count = 1 if self.examples is None else 4
        return state[:count], state[count:]

    def _standard(self, vector: Tensor) -> Tensor:
        return (self._compressed(vector) - self.mean) / self.scale

    def _compressed(self, values: Tensor) -> Tensor:
        """The fourth root of values that range over decades (a power transform: Box and Cox 1964).
        Of a signed model x / √(s + |x|), s being the softness: nearly a line about 0, where a root
        would tear apart what is alike, and a square root far from it.

        A logarithm would do as well, but onnxruntime computes it otherwise at the end of an array
        than in its middle, so a row's bits would depend on its batch; a square root is exact.
        """
        if self.softness is None:
            return torch.sqrt(torch.sqrt(values))
        return values / torch.sqrt(self.softness + values.abs())

    def _entering(self, tokens: Tensor, condition: Tensor) -> Tensor:
        beside = condition.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        return torch.cat((self.dropout(self.embedding(tokens)), beside), dim=2)

    def _look_up(self, standard: Tensor) -> State:
        """An example is read as the writer would have written it, but under no condition."""
        if self.examples is None:
            return ()
        tokens, scores = self.examples.nearest_to(standard)
        before = tokens[:, :, :-1].flatten(0, 1)
        nothing = standard.new_zeros(len(before), self.config.condition_size)
        features, _ = self.stack(self._entering(before, nothing))
        embedded = self.embedding(tokens[:, :, 1:])
        return self.examples.look_at(tokens, scores, self.dropout(features), embedded).state

    def _logits(self, features: Tensor, fixed: State) -> Tensor:
        """features (batch, time, hidden) → (batch, time, vocabulary)"""
        features = self.dropout(features)
        logits: Tensor = self.output(features)
        if self.examples is None:
            return logits
        return self.examples.copy(logits, features, RetrievedMemory(*fixed[1:]))
