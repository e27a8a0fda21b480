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
from training.models.example_ranker import ExampleRanker, RankedExamples
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
    signed: whether values may lie below 0. unknown: whether they may be unknown (NaN).
    candidates: examples that are ranked for the ``nearest`` to be chosen from, 0 for the nearest
    themselves; ranker_size: hidden units of what ranks them. Such a model has ``unknown``.
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
    unknown: bool = False
    candidates: int = 0
    ranker_size: int = 0

    def __post_init__(self) -> None:
        memory = (self.examples, self.example_tokens, self.nearest, self.key_size)
        if any(memory) and (min(memory) < 1 or self.nearest >= self.examples):
            raise DesignInvalid(
                "examples, example_tokens, nearest and key_size are all 0 or all given, nearest "
                f"below examples; they are {memory}"
            )
        ranking = (self.candidates, self.ranker_size)
        if any(ranking) and not (
            self.unknown and self.ranker_size > 0
            and self.nearest < self.candidates < self.examples
        ):  # fmt: skip
            raise DesignInvalid(
                "candidates and ranker_size are both 0 or both given, of a model with unknown, "
                f"candidates from above nearest to below examples; they are {ranking}"
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
        reads = 2 * config.vector_size if config.unknown else config.vector_size
        self.reader = nn.Linear(reads, config.condition_size)
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
            ranker = None
            if config.candidates:
                ranker = ExampleRanker(config.vector_size, config.ranker_size, config.dropout)
            self.examples = Examples(
                config.examples,
                config.example_tokens,
                config.nearest,
                config.key_size,
                config.vector_size,
                config.embedding_size,
                config.recurrent.output_size,
                config.vocabulary_size,
                config.unknown,
                config.candidates,
                ranker,
            )

    def standardise(self, vectors: Tensor) -> None:
        """Take mean, scale and softness from ``vectors`` (examples, vector_size), as ``encode``
        takes them: of each value from those that are known."""
        known = ~vectors.isnan()
        if self.softness is not None:
            size, _ = _moments(vectors.abs(), known)
            self.softness.copy_(torch.where(size > 0, size, 1.0))
        mean, spread = _moments(self._compressed(vectors), known)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))

    def remember(self, vectors: Tensor, begin_id: int, sequences: Sequence[Sequence[int]]) -> None:
        """Fill the memory: vectors (examples, vector_size) as they are given to ``encode``, no
        two alike; of each the tokens that were written for it, padding for those not to be
        copied. The configuration says how many there are.
        """
        assert self.examples is not None, "the configuration has no examples"
        standard, known = self._standard(vectors)
        self.examples.remember(
            standard, None if known is None else known.bool(), begin_id, sequences
        )
        self.config = replace(self.config, examples=len(vectors))

    def sharpen(self, factor: float) -> None:
        """Multiply the distances of the examples by ``factor``; above 1 keeps to the nearest."""
        assert self.examples is not None, "the configuration has no examples"
        self.examples.sharpen(factor)

    def encode(self, vector: Tensor) -> State:
        """vector (batch, vector_size), values at least 0 unless signed, NaN for those that are
        unknown where the model knows such → the first state"""
        return self.read(vector)[0]

    def read(
        self, vector: Tensor, shown: Tensor | None = None
    ) -> tuple[State, RankedExamples | None]:
        """As ``encode``, and the examples that were ranked, where there is a memory.

        shown: (batch, vector_size) bool, the values that are read; the others are as unknown, but
        a vector that is trained on is still known by them for an example of the memory.
        """
        standard, known = self._standard(vector)
        whole = standard
        if shown is not None and known is not None:
            known = known * shown
            standard = standard * known
        noisy = standard
        if self.training and self.config.noise:
            noisy = standard + self.config.noise * torch.randn_like(standard)
        if known is not None:
            noisy = torch.cat((noisy * known, known), dim=1)
        condition = self.deeper(torch.tanh(self.reader(self.dropout(noisy))))
        condition = self.condition_dropout(condition)
        remembered, ranked = self._look_up(standard, known, whole)
        return (condition, *remembered, *self.stack.zero_state(len(vector), condition)), ranked

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

    def _standard(self, vector: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of a model that knows unknown values 0 for those, and 1 or 0 for each: is it known?"""
        if not self.config.unknown:
            return (self._compressed(vector) - self.mean) / self.scale, None
        is_unknown = torch.isnan(vector)
        values = self._compressed(torch.where(is_unknown, 0.0, vector))
        standard = torch.where(is_unknown, 0.0, (values - self.mean) / self.scale)
        return standard, (~is_unknown).to(vector.dtype)

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

    def _look_up(
        self, standard: Tensor, known: Tensor | None, whole: Tensor
    ) -> tuple[State, RankedExamples | None]:
        """An example is read as the writer would have written it, but under no condition."""
        if self.examples is None:
            return (), None
        tokens, scores, ranked = self.examples.nearest_to(standard, known, whole)
        before = tokens[:, :, :-1].flatten(0, 1)
        nothing = standard.new_zeros(len(before), self.config.condition_size)
        features, _ = self.stack(self._entering(before, nothing))
        embedded = self.embedding(tokens[:, :, 1:])
        memory = self.examples.look_at(tokens, scores, self.dropout(features), embedded)
        return memory.state, ranked

    def _logits(self, features: Tensor, fixed: State) -> Tensor:
        """features (batch, time, hidden) → (batch, time, vocabulary)"""
        features = self.dropout(features)
        logits: Tensor = self.output(features)
        if self.examples is None:
            return logits
        return self.examples.copy(logits, features, RetrievedMemory(*fixed[1:]))


def _moments(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """values, known (examples, size) → the mean and the deviation of each column's known values;
    0 where there are none"""
    if known.all():
        return values.mean(dim=0), values.std(dim=0)
    counts = known.sum(dim=0)
    mean = torch.where(known, values, 0.0).sum(dim=0) / counts.clamp(min=1)
    apart = torch.where(known, values - mean, 0.0).square().sum(dim=0)
    return mean, torch.sqrt(apart / (counts - 1).clamp(min=1))
