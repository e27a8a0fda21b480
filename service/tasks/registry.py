"""The table of tasks, and how another package adds to it."""

from __future__ import annotations

import importlib

from bundle.tasks import register_spec
from service.config import ConfigInvalid
from service.oip.adapters import ModelAdapter
from service.serving.model_factory import ModelBuilder
from service.serving.served_model import ServedModel
from service.tasks import classify, fill, forecast, generate, seq2seq, step, tag, vec2seq
from service.tasks.task import Task

_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """From now on bundles of this task are read and served.

    Raises ValueError for a name that is taken.
    """
    register_spec(task.spec)
    if _TASKS.get(task.name, task) is not task:
        raise ValueError(f"there is a task {task.name!r} already; choose another name")
    _TASKS[task.name] = task


for _task in (
    classify.TASK, tag.TASK, fill.TASK, generate.TASK, seq2seq.TASK, vec2seq.TASK, forecast.TASK,
    step.TASK,
):  # fmt: skip
    register(_task)


def load_modules(names: str) -> None:
    """Import the modules that ``names`` lists with commas between; each registers its tasks.

    Raises ConfigInvalid, which names the one that cannot be imported.
    """
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever it does when it is imported
            raise ConfigInvalid(
                f"task_modules: module {name!r} cannot be imported ({error!r}); install it, or "
                "leave it out"
            ) from error


def build_model(builder: ModelBuilder) -> ServedModel:
    return _TASKS[builder.manifest.task].build(builder)


def adapters_of(model: ServedModel) -> tuple[ModelAdapter, ModelAdapter]:
    """Of NAME and of NAME.tensors, for the inference protocol."""
    return _TASKS[model.card.task].adapters(model)
