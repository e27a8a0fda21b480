"""The Task object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bundle.tasks import TaskSpec
from service.oip.adapters import ModelAdapter
from service.serving.model_factory import ModelBuilder
from service.serving.served_model import ServedModel


@dataclass(frozen=True)
class Task:
    """How bundles of one task are served.

    spec: what such a bundle holds, its name as the manifest has it.
    build: the served model, with its engines on threads of the builder's and its warm-ups. Its
    class says which calls of unroll.v1 it answers; those look their model up by that class.
    adapter: of that model, for NAME over the inference protocol. tensor_adapter: for
    NAME.tensors; the same where there is none.
    """

    spec: TaskSpec
    build: Callable[[ModelBuilder], ServedModel]
    # Of the very class that build() makes, which is not to be said without a type for each task.
    adapter: Callable[[Any], ModelAdapter]
    tensor_adapter: Callable[[Any], ModelAdapter] | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    def adapters(self, model: ServedModel) -> tuple[ModelAdapter, ModelAdapter]:
        """Of NAME and of NAME.tensors."""
        first = self.adapter(model)
        return first, self.tensor_adapter(model) if self.tensor_adapter else first
