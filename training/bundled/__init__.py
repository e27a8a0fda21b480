"""The bundled models: each a recipe, ``training/recipes/NAME.toml``, over one of the tasks.

``[data]`` of such a recipe names the module here that reads its packages, ``module``; it declares
``TASK``, which is a task of training/tasks/ with what is particular to the model.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import config
from training.data.packages import DATA_FOLDER

if TYPE_CHECKING:
    from training.tasks.base import Task


@dataclass(frozen=True)
class PackageData:
    """The table ``[data]`` of a bundled model.

    module: what reads its packages. folder: that they lie in. most: examples that are read, 0 for
    all. description: a sentence that says what the model does.
    """

    module: str
    description: str
    folder: str = str(DATA_FOLDER)
    most: int = 0

    @property
    def path(self) -> Path:
        return Path(self.folder)


def bundled_task(model: str) -> Task[Any] | None:
    """The task of a bundled model; None for a model that has no recipe, or whose recipe names no
    module. Raises RecipeInvalid for a recipe that cannot be read.
    """
    if model not in config.models():
        return None
    module = config.recipe_of(model).data.get("module")
    if not module:
        return None
    task: Task[Any] = importlib.import_module(module).TASK
    return task
