"""A prompt in, its continuation out, token by token."""

from __future__ import annotations

from bundle.manifest import GENERATE
from bundle.tasks import spec_of
from service.oip.generate_adapters import GenerateFromText
from service.oip.tensor_adapters import PromptSteps
from service.serving.generator import GeneratorModel
from service.serving.model_factory import ModelBuilder
from service.serving.model_metadata import text_input
from service.tasks.generating import build_generator, warm_tokens
from service.tasks.task import Task


def build(builder: ModelBuilder) -> GeneratorModel:
    """A model whose texts were marked where they begin may begin from nothing."""
    prompt = text_input(builder.bundle, "prompt", reads_empty=True)
    return build_generator(builder, prompt, warm_tokens(builder), is_conditioned=False)


TASK = Task(spec_of(GENERATE), build, GenerateFromText, PromptSteps)
