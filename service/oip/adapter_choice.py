"""Which form a model has, by its kind."""

from __future__ import annotations

from service.oip.adapters import ModelAdapter
from service.oip.generate_adapters import GenerateText
from service.oip.tensor_adapters import (
    ClassifyTensors,
    FillTensors,
    StepTensors,
    TagTensors,
)
from service.oip.text_adapters import ClassifyText, FillText, TagText
from service.serving.classifier import ClassifierModel
from service.serving.fill_mask import FillModel
from service.serving.model_version import ServedModel
from service.serving.tagger import TaggerModel


def form_of(model: ServedModel, is_tensors: bool) -> ModelAdapter:
    """Of texts, or of tensors."""
    if isinstance(model, ClassifierModel):
        return ClassifyTensors(model) if is_tensors else ClassifyText(model)
    if isinstance(model, TaggerModel):
        return TagTensors(model) if is_tensors else TagText(model)
    if isinstance(model, FillModel):
        return FillTensors(model) if is_tensors else FillText(model)
    return StepTensors(model) if is_tensors else GenerateText(model)
