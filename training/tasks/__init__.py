"""The tasks that are trained on files, by their commands; what one is to training: base.py.

A new task is a module with a Task, a line below, and ``training/recipes/tasks/COMMAND.toml``.
"""

from __future__ import annotations

from typing import Any

from training.config import TASK_RECIPES, Recipe, load_recipe
from training.tasks.base import Task
from training.tasks.classify import Classify
from training.tasks.fill import FillIn
from training.tasks.forecast import Forecast
from training.tasks.frames import ClassifyFrames
from training.tasks.generate import Generate
from training.tasks.seq2seq import Seq2SeqOfFiles
from training.tasks.tag import Tag
from training.tasks.vec2seq import Vec2Seq

TASKS: dict[str, Task[Any]] = {
    task.command: task
    for task in (
        Classify(),
        ClassifyFrames(),
        Tag(),
        FillIn(),
        Generate(),
        Seq2SeqOfFiles(),
        Vec2Seq(),
        Forecast(),
    )
}


def default_recipe(task: str, quick: bool = False) -> Recipe:
    """What a task is trained with where nobody says otherwise."""
    return load_recipe(TASK_RECIPES / f"{task}.toml", quick)


__all__ = ["TASKS", "Task", "default_recipe"]
