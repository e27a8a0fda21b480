"""A label of a whole text: one graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH
from export.graphs import LENGTHS, TOKENS, Graph, GraphTensor
from export.onnx_files import ExportRefused
from export.tasks.base import ExportTask, Wrapped
from training.models.baselines import BaselineConfig
from training.models.classifier import ClassifierConfig

ReaderConfig = ClassifierConfig | BaselineConfig


class _Predict(Wrapped):
    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.softmax(self.model(tokens, lengths), dim=1)


class ClassifyExport(ExportTask[ReaderConfig]):
    def graphs(
        self, model: nn.Module, config: ReaderConfig, never_sampled_ids: Sequence[int], traced: bool
    ) -> list[Graph]:
        if config.longest_text:
            raise ExportRefused(
                f"a feed-forward network reads at most {config.longest_text} words, a bundle's "
                "graphs read texts of any length; export another reader"
            )
        probabilities = GraphTensor("probabilities", torch.float32, (BATCH, config.labels))
        return [Graph("predict", _Predict(model), (TOKENS, LENGTHS), (), (probabilities,))]
