"""A text or a sequence of frames in, a label for the whole of it out: Classify. After each frame of
a stream, too, where a model reads them from the first to the last: StreamStep.
"""

from __future__ import annotations

from bundle.manifest import CLASSIFY
from bundle.tasks import spec_of
from service.oip.adapters import ModelAdapter
from service.oip.frame_adapters import ClassifyFrames, ClassifyFrameTensors
from service.oip.tensor_adapters import ClassifyTensors
from service.oip.text_adapters import ClassifyText
from service.runtime.runners import FramesRunner, PredictRunner
from service.serving.classifier import (
    ClassifierModel,
    FrameClassifierModel,
    TextClassifierModel,
)
from service.serving.model_factory import ModelBuilder
from service.tasks.step import build_stepper
from service.tasks.task import Task


def build(builder: ModelBuilder) -> ClassifierModel:
    card = builder.probed_card()
    if card.frames is None:
        runner = PredictRunner(builder.sessions["predict"])
        thread = builder.batch_thread("predict", runner)
        return TextClassifierModel(card, builder.tokenizers["input"], thread)
    thread = builder.batch_thread("predict", FramesRunner(builder.sessions["predict"]))
    stepper = build_stepper(builder, card) if "step" in builder.sessions else None
    return FrameClassifierModel(stepper.card if stepper else card, thread, stepper)


def _adapter(model: ClassifierModel) -> ModelAdapter:
    if isinstance(model, FrameClassifierModel):
        return ClassifyFrames(model)
    assert isinstance(model, TextClassifierModel), "build() makes no others"
    return ClassifyText(model)


def _tensor_adapter(model: ClassifierModel) -> ModelAdapter:
    if isinstance(model, FrameClassifierModel):
        return ClassifyFrameTensors(model)
    assert isinstance(model, TextClassifierModel), "build() makes no others"
    return ClassifyTensors(model)


TASK = Task(spec_of(CLASSIFY), build, _adapter, _tensor_adapter)
