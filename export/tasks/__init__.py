"""Tasks as export knows them, by the name that a configuration and the manifest give them.

A new task is a module with an ExportTask and a line of TASKS; a new architecture of a known task
is none of export's business, as long as its model is called as the task's others are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from bundle.manifest import (
    CLASSIFY,
    FILL,
    FORECAST,
    GENERATE,
    SEQ2SEQ,
    TAG,
    VEC2SEQ,
    StateTensor,
)
from export.graphs import Graph
from export.tasks.base import ExportTask
from export.tasks.classify import ClassifyExport
from export.tasks.fill import FillExport
from export.tasks.forecast import ForecastExport
from export.tasks.generate import GenerateExport
from export.tasks.seq2seq import Seq2SeqExport
from export.tasks.tag import TagExport
from export.tasks.vec2seq import Vec2SeqExport
from training.models import Config

TASKS: dict[str, ExportTask[Any]] = {
    CLASSIFY: ClassifyExport(),
    TAG: TagExport(),
    FILL: FillExport(),
    GENERATE: GenerateExport(),
    SEQ2SEQ: Seq2SeqExport(),
    VEC2SEQ: Vec2SeqExport(),
    FORECAST: ForecastExport(),
}


def state_of(config: Config) -> tuple[StateTensor, ...]:
    """What a stream of this model carries: fixed tensors first, then its stack's."""
    return TASKS[config.task].state(config)


def graphs_of(
    model: nn.Module, config: Config, never_sampled_ids: Sequence[int], traced: bool = False
) -> list[Graph]:
    """As ExportTask.graphs of the configuration's task."""
    return TASKS[config.task].graphs(model, config, never_sampled_ids, traced)


def step_of(
    model: nn.Module,
    config: Config,
    never_sampled_ids: Sequence[int],
    name: str = "step",
    weights_prefix: str = "",
) -> Graph:
    """As ExportTask.step of the configuration's task."""
    return TASKS[config.task].step(model, config, never_sampled_ids, name, weights_prefix)


__all__ = ["TASKS", "ExportTask", "graphs_of", "state_of", "step_of"]
