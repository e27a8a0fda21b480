"""A label of a whole text, or of a whole sequence of frames: one graph. Where nothing is read from
the end, a label after each frame too: a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH, TIME, StateTensor
from bundle.stepping import EXACT, SteppingSpec
from export.graphs import LENGTHS, TOKENS, Graph, GraphTensor, stack_state, state_ports
from export.onnx_files import ExportRefused
from export.tasks.base import ExportTask, Wrapped
from training.models.baselines import BaselineConfig
from training.models.cells import State
from training.models.classifier import ClassifierConfig
from training.models.frame_classifier import PEAK, FrameClassifierConfig

ReaderConfig = ClassifierConfig | BaselineConfig | FrameClassifierConfig

PROBABILITIES, FRAME = "probabilities", "frame"


class _Predict(Wrapped):
    def forward(self, read: Tensor, lengths: Tensor) -> Tensor:
        return torch.softmax(self.model(read, lengths), dim=1)


class _Step(Wrapped):
    def forward(self, frame: Tensor, state: State) -> tuple[Any, ...]:
        logits, after = self.model.step(frame, state)
        return (torch.softmax(logits, dim=1), *after)


class ClassifyExport(ExportTask[ReaderConfig]):
    def state(self, config: ReaderConfig) -> tuple[StateTensor, ...]:
        if not (isinstance(config, FrameClassifierConfig) and config.is_stepped):
            return ()
        peak = StateTensor(PEAK, "float32", (config.recurrent.output_size,), carried=True)
        return (peak, *stack_state(config.recurrent))

    def stepping(self, config: ReaderConfig, frame_seconds: float) -> SteppingSpec | None:
        if not self.state(config):
            return None
        return SteppingSpec(
            frames=(FRAME,),
            answers=(PROBABILITIES,),
            shared=(),
            batching=EXACT,
            difference=0.0,
            reason="",
            frame_seconds=frame_seconds,
            attributes={},
        )

    def graphs(
        self, model: nn.Module, config: ReaderConfig, never_sampled_ids: Sequence[int], traced: bool
    ) -> list[Graph]:
        probabilities = GraphTensor(PROBABILITIES, torch.float32, (BATCH, config.labels))
        if isinstance(config, FrameClassifierConfig):
            return self._graphs_of_frames(model, config, probabilities)
        if config.longest_text:
            raise ExportRefused(
                f"a feed-forward network reads at most {config.longest_text} words, a bundle's "
                "graphs read texts of any length; export another reader"
            )
        return [Graph("predict", _Predict(model), (TOKENS, LENGTHS), (), (probabilities,))]

    def _graphs_of_frames(
        self, model: nn.Module, config: FrameClassifierConfig, probabilities: GraphTensor
    ) -> list[Graph]:
        frames = GraphTensor("frames", torch.float32, (BATCH, TIME, config.channels))
        predict = Graph("predict", _Predict(model), (frames, LENGTHS), (), (probabilities,))
        if not config.is_stepped:
            return [predict]
        state, carried = state_ports(self.state(config))
        frame = GraphTensor(FRAME, torch.float32, (BATCH, config.channels))
        step = Graph("step", _Step(model), (frame,), state, (probabilities, *carried))
        return [predict, step]
