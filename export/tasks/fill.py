"""The word of a blank, from both its sides: one graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH
from export.graphs import LENGTHS, RIGHT_TIME, TOKENS, Graph, GraphTensor
from export.tasks.base import ExportTask, Wrapped
from training.models.fill import FillConfig


class _Predict(Wrapped):
    """``tokens`` are those to the left of the blank."""

    def forward(
        self, tokens: Tensor, lengths: Tensor, right: Tensor, right_lengths: Tensor
    ) -> Tensor:
        return torch.softmax(self.model(tokens, lengths, right, right_lengths), dim=1)


class FillExport(ExportTask[FillConfig]):
    def graphs(
        self, model: nn.Module, config: FillConfig, never_sampled_ids: Sequence[int], traced: bool
    ) -> list[Graph]:
        right = GraphTensor("right", torch.int64, (BATCH, RIGHT_TIME))
        right_lengths = GraphTensor("right_lengths", torch.int64, (BATCH,))
        inputs = (TOKENS, LENGTHS, right, right_lengths)
        probabilities = GraphTensor("probabilities", torch.float32, (BATCH, config.candidates))
        return [Graph("predict", _Predict(model), inputs, (), (probabilities,))]
