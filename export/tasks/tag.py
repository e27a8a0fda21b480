"""A label of each token: of the whole text at once, and token by token where nothing to the right
is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH, TIME, StateTensor
from export.graphs import LENGTHS, TOKENS, Graph, GraphTensor, stack_state
from export.tasks.base import ExportTask, Wrapped
from export.weights import scanned
from training.models.layers import unroll
from training.models.tagger import TaggerConfig


class _Predict(Wrapped):
    """traced: whether the label that is fed back runs through a Scan, or step by step."""

    def __init__(self, model: Any, traced: bool) -> None:
        super().__init__(model)
        self.unroll = scanned if traced else unroll

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.softmax(self.model.tag(tokens, lengths, self.unroll), dim=2)


class TagExport(ExportTask[TaggerConfig]):
    def state(self, config: TaggerConfig) -> tuple[StateTensor, ...]:
        if not config.streams:
            return ()
        label = StateTensor("previous_label", "int64", (), carried=True)
        fed_back = (label,) if config.recurrent.reads_output else ()
        return fed_back + stack_state(config.recurrent)

    def choices(self, config: TaggerConfig) -> int:
        return config.labels

    def graphs(
        self, model: nn.Module, config: TaggerConfig, never_sampled_ids: Sequence[int], traced: bool
    ) -> list[Graph]:
        probabilities = GraphTensor("probabilities", torch.float32, (BATCH, TIME, config.labels))
        predict = Graph("predict", _Predict(model, traced), (TOKENS, LENGTHS), (), (probabilities,))
        # Every label may be drawn, whatever a tokenizer's markers are.
        return [predict, self.step(model, config, ())] if config.streams else [predict]
