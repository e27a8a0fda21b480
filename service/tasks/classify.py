"""A text in, a label for the whole of it out: Classify."""

from __future__ import annotations

from bundle.manifest import CLASSIFY
from bundle.tasks import spec_of
from service.oip.tensor_adapters import ClassifyTensors
from service.oip.text_adapters import ClassifyText
from service.runtime.runners import PredictRunner
from service.serving.classifier import ClassifierModel
from service.serving.model_factory import ModelBuilder
from service.tasks.task import Task


def build(builder: ModelBuilder) -> ClassifierModel:
    runner = PredictRunner(builder.sessions["predict"])
    return ClassifierModel(
        builder.probed_card(), builder.tokenizers["input"], builder.batch_thread("predict", runner)
    )


TASK = Task(spec_of(CLASSIFY), build, ClassifyText, ClassifyTensors)
