"""A source text in, a text about it out, token by token."""

from __future__ import annotations

from bundle.manifest import SEQ2SEQ
from bundle.tasks import spec_of
from service.oip.generate_adapters import GenerateFromText
from service.oip.tensor_adapters import SourceSteps
from service.serving.generator import GeneratorModel
from service.serving.generator_input import TextInput
from service.serving.model_factory import ModelBuilder
from service.tasks.generating import build_generator, warm_tokens
from service.tasks.task import Task


def build(builder: ModelBuilder) -> GeneratorModel:
    source = TextInput("source", builder.tokenizers["input"])
    return build_generator(builder, source, warm_tokens(builder), is_conditioned=True)


TASK = Task(spec_of(SEQ2SEQ), build, GenerateFromText, SourceSteps)
