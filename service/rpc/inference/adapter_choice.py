"""Which form a model has, by its kind."""

from __future__ import annotations

from service.engine.fill_mask import FillModel
from service.engine.model_version import ServedModel
from service.engine.models import ClassifierModel
from service.engine.tagging import TaggerModel
from service.rpc.inference.adapters import ModelAdapter
from service.rpc.inference.generate_adapters import GenerateText
from service.rpc.inference.tensor_adapters import (
    ClassifyTensors,
    FillTensors,
    StepTensors,
    TagTensors,
)
from service.rpc.inference.text_adapters import ClassifyText, FillText, TagText


def form_of(model: ServedModel, is_tensors: bool) -> ModelAdapter:
    """Of texts, or of tensors."""
    if isinstance(model, ClassifierModel):
        return ClassifyTensors(model) if is_tensors else ClassifyText(model)
    if isinstance(model, TaggerModel):
        return TagTensors(model) if is_tensors else TagText(model)
    if isinstance(model, FillModel):
        return FillTensors(model) if is_tensors else FillText(model)
    return StepTensors(model) if is_tensors else GenerateText(model)
