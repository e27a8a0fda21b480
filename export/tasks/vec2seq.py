"""A sequence made of a vector, which may copy from remembered examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH, StateTensor
from export.graphs import Graph, GraphTensor, stack_state
from export.tasks.base import Wrapped, WritingTask, prefilled
from training.models.cells import State
from training.models.vec2seq import VectorToSequenceConfig


class _Prefill(Wrapped):
    def forward(self, vector: Tensor) -> State:
        state: State = self.model.encode(vector)
        return state


class Vec2SeqExport(WritingTask[VectorToSequenceConfig]):
    def state(self, config: VectorToSequenceConfig) -> tuple[StateTensor, ...]:
        condition = StateTensor("condition", "float32", (config.condition_size,), carried=False)
        return (condition, *self._memory(config), *stack_state(config.recurrent))

    def _memory(self, config: VectorToSequenceConfig) -> tuple[StateTensor, ...]:
        if not config.examples:
            return ()
        slots = config.nearest * config.example_tokens
        return (
            StateTensor("memory", "float32", (slots, config.key_size), carried=False),
            StateTensor("memory_tokens", "int64", (slots,), carried=False),
            StateTensor("memory_scores", "float32", (slots,), carried=False),
        )

    def choices(self, config: VectorToSequenceConfig) -> int:
        return config.vocabulary_size

    def prefill(self, model: nn.Module, config: VectorToSequenceConfig) -> list[Graph]:
        shape = (BATCH, config.vector_size)
        vector = GraphTensor(
            "vector", torch.float32, shape, signed=config.signed, unknown=config.unknown
        )
        return [Graph("prime", _Prefill(model), (vector,), (), prefilled(self.state(config)))]
