"""A vector in, a text about it out, token by token."""

from __future__ import annotations

from bundle.manifest import BELOW_ZERO, UNKNOWN_VALUES, VEC2SEQ
from bundle.tasks import spec_of
from service.oip.generate_adapters import GenerateFromVector
from service.oip.tensor_adapters import VectorSteps
from service.serving.generator import GeneratorModel
from service.serving.generator_input import VectorInput
from service.serving.inputs import MOST_NUMBER
from service.serving.model_factory import ModelBuilder
from service.tasks.generating import build_generator
from service.tasks.task import Task


def build(builder: ModelBuilder) -> GeneratorModel:
    fields, limits = builder.manifest.vector, builder.manifest.limits
    least = -min(limits.get(BELOW_ZERO, 0), MOST_NUMBER)
    given = VectorInput(fields, least, limits.get(UNKNOWN_VALUES, 0))
    return build_generator(builder, given, len(fields), is_conditioned=True)


TASK = Task(spec_of(VEC2SEQ), build, GenerateFromVector, VectorSteps)
