"""Adapters of classifiers of frames: sequences in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.engine.errors import WrongInput
from service.oip.adapters import InferResult, ModelAdapter
from service.oip.tensor_adapters import NUMBER_BYTES, probability_outputs, with_logits
from service.oip.tensors import Array, TensorMetadata
from service.oip.text_adapters import answered, label_outputs
from service.serving.classifier import Classified, FrameClassifierModel
from service.serving.inputs import off_loop


class ClassifyFrames(ModelAdapter):
    """Rows are as long as the longest, unless ``lengths`` says how many frames of each count."""

    def __init__(self, model: FrameClassifierModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.inputs = (
            TensorMetadata("frames", "FP32", (-1, -1, len(model.channels))),
            TensorMetadata("lengths", "INT64", (-1, 1), optional=True),
        )
        self.outputs = label_outputs(model.card.labels)

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        return len(inputs["frames"]) * len(self.card.labels) * NUMBER_BYTES

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        rows = await self.model.classify_frames(self._sequences(inputs))
        return await off_loop(len(rows) * len(self.card.labels), lambda: self._result(rows))

    def _result(self, rows: Sequence[Classified]) -> InferResult:
        return answered(rows)

    def _sequences(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Without what lies beyond their lengths. Raises WrongInput."""
        frames = inputs["frames"]
        self.batch(inputs)
        if "lengths" not in inputs:
            return list(frames)
        counts = inputs["lengths"].reshape(-1).tolist()
        for row, count in enumerate(counts):
            if not 1 <= count <= frames.shape[1]:
                raise WrongInput(
                    f"input 'lengths': row {row} is {count}; 'frames' has {frames.shape[1]} a row"
                )
        return [row[:count] for row, count in zip(frames, counts, strict=True)]


class ClassifyFrameTensors(ClassifyFrames):
    """As ClassifyFrames, every label's probability and logit out."""

    def __init__(self, model: FrameClassifierModel) -> None:
        super().__init__(model)
        self.outputs = probability_outputs(model.card.labels)

    def _result(self, rows: Sequence[Classified]) -> InferResult:
        return with_logits(np.array([row.probabilities for row in rows], np.float32))
