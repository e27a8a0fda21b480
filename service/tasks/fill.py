"""A text with a blank in, the words that may stand there out: Fill."""

from __future__ import annotations

from bundle.manifest import FILL
from bundle.tasks import spec_of
from service.oip.tensor_adapters import FillTensors
from service.oip.text_adapters import FillText
from service.runtime.runners import FillRunner
from service.serving.fill_mask import FillModel, Markers
from service.serving.model_factory import ModelBuilder
from service.tasks.task import Task


def build(builder: ModelBuilder) -> FillModel:
    card, reader = builder.probed_card(), builder.tokenizers["input"]
    markers = Markers(reader.vocabulary.begin_id, reader.vocabulary.end_id)
    thread = builder.batch_thread("predict", FillRunner(builder.sessions["predict"]))
    return FillModel(card, reader, markers, thread)


TASK = Task(spec_of(FILL), build, FillText, FillTensors)
