"""One run of a task on files: what was inferred is printed, then it is trained, measured, kept.

A run's folder holds what is needed to train the same again (``recipe.toml``), to export it
(``model.pt``), to measure it again (``held-out.jsonl``), and what was found: ``report.json``,
``metrics.jsonl`` (a line an epoch), ``loss.png`` and ``card.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.budget import within_minutes
from training.card import write_card
from training.checkpoint import Figure, TrainedModel
from training.cli import Run
from training.config import Recipe
from training.held_out import HeldOut
from training.loop import FitSettings
from training.measurements import Measurement
from training.models import config_to_json
from training.readers import digest_of
from training.splits import Splits
from training.tasks import TASKS
from training.tasks.base import Prepared, Task

RECIPE_FILE, HELD_OUT_FILE = "recipe.toml", "held-out.jsonl"


@dataclass(frozen=True)
class TaskRun(Run):
    """chosen: the recipe, with the command's own settings in it. typed: the command.
    minutes: that training may take, 0 for as long as the recipe says.
    """

    chosen: Recipe | None = None
    typed: str = ""
    minutes: float = 0.0

    @property
    def command(self) -> str:
        return self.typed

    @property
    def recipe(self) -> Recipe:  # type: ignore[override]
        assert self.chosen is not None, "a run of a task has its recipe"
        return self.chosen

    @property
    def _has_recipe(self) -> bool:
        return True


def train_task(run: TaskRun, task: Task[Any]) -> None:
    """Raises DataInvalid and RecipeInvalid before anything is trained; otherwise as Run.fit()."""
    splits, facts = task.read(run.recipe)
    prepared = task.prepare(run.recipe, splits, run.seed)
    run = replace(run, chosen=prepared.recipe)
    settings = _fit_settings(run, prepared)
    if run.team.is_leader:
        _print_facts(run, [*facts, *prepared.facts], settings)
        _keep(run, task, splits, settings)
    model, history = run.fit(prepared.build, prepared.config, prepared.training, settings)
    prepared.finish(model)
    trained = TrainedModel(
        name=run.model,
        description=prepared.description,
        # Finishing may change it: a model remembers more examples than it was trained with.
        config=config_to_json(getattr(model, "config", prepared.config)),
        weights=model.state_dict(),
        tokenizers=dict(prepared.tokenizers),
        labels=prepared.labels,
        vector=prepared.vector,
        limits=dict(prepared.limits),
        data=(_source(run, task),),
        training=run.facts(model, history),
    )
    held_out = task.held_out(splits.held_out, trained)
    answers = task.answers(model, trained, held_out.questions)
    measured = held_out.measure(answers)
    figures = _figures(held_out, measured, splits.name, run.command)
    floors = [
        {"figure": name, "floor": floor, "value": found.value}
        for floor, said in task.floors(splits, trained, held_out.questions).items()
        for (name, _), found in zip(held_out.figures, held_out.measure(said), strict=True)
    ]
    trained = replace(trained, figures=figures, training={**trained.training, "floors": floors})
    run.finish(trained, history)
    _print_floors(trained)
    write_card(run.folder, task, trained, held_out, measured, answers)
    print(f"{run.folder / 'card.md'} has all of it; next: python -m export {run.model}")


def _fit_settings(run: TaskRun, prepared: Prepared) -> FitSettings:
    """Of a resumed run with a budget, what it began with."""
    settings = prepared.recipe.fit_settings(run.seed)
    if not run.minutes:
        return settings
    model = prepared.build(prepared.config)
    return within_minutes(settings, model, prepared.training, run.minutes)


def figures_of(
    kept: KeptHeldOut, trained: TrainedModel, model: Any, command: str
) -> tuple[Figure, ...]:
    """The held-out figures of ``model``, which is called as ``trained`` is built."""
    held_out = kept.questions(trained)
    answers = TASKS[kept.task].answers(model, trained, held_out.questions)
    return _figures(held_out, held_out.measure(answers), kept.split, command)


def _figures(
    held_out: HeldOut[Any, Any], measured: Sequence[Measurement], split: str, command: str
) -> tuple[Figure, ...]:
    return tuple(
        Figure(name, found.value, unit, split, found.examples, command)
        for (name, unit), found in zip(held_out.figures, measured, strict=True)
    )


def _print_facts(run: TaskRun, facts: Sequence[tuple[str, str]], settings: FitSettings) -> None:
    epochs = f"{settings.epochs} at most, learning rate {settings.learning_rate:g}"
    if settings.parts > 1:
        epochs += f", each a part of {settings.parts} of a reading"
    print(f"{run.model}: what was inferred (--set table.key=value chooses otherwise)")
    for what, value in [*facts, ("epochs", epochs)]:
        print(f"  {what:<9} {value}")


def _print_floors(trained: TrainedModel) -> None:
    units = {figure.name: figure.unit for figure in trained.figures}
    for floor in trained.training["floors"]:
        unit = units[floor["figure"]]
        print(f"  floor: {floor['figure']} {floor['value']:.4f} {unit} by {floor['floor']}")


def _keep(run: TaskRun, task: Task[Any], splits: Splits[Any], settings: FitSettings) -> None:
    """What the same is trained and measured with again."""
    recipe = run.recipe.with_value("fit.epochs", settings.epochs)
    recipe = recipe.with_value("fit.parts", settings.parts)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / RECIPE_FILE).write_text(recipe.to_toml(), encoding="utf8")
    with (run.folder / HELD_OUT_FILE).open("w", encoding="utf8") as file:
        first = {"task": task.name, "split": splits.name, "examples": len(splits.held_out)}
        for content in (first, *map(task.example_to_json, splits.held_out)):
            file.write(json.dumps(content, ensure_ascii=False) + "\n")


def _source(run: TaskRun, task: Task[Any]) -> dict[str, str]:
    """Of the data: what a manifest records, as of a package."""
    settings = run.recipe.data_settings(task.data)
    return {
        "package": Path(settings.files).name,
        "version": "a file of its own",
        "sha256": digest_of(settings.files),
        "licence": settings.licence or "not stated",
    }


@dataclass(frozen=True)
class KeptHeldOut:
    """What a run held out, as it keeps it. split: its name. examples: JSON of the task's."""

    task: str
    split: str
    examples: Sequence[Any]

    def questions(self, trained: TrainedModel) -> HeldOut[Any, Any]:
        task = TASKS[self.task]
        return task.held_out([task.example_from_json(e) for e in self.examples], trained)


def kept_held_out(folder: Path) -> KeptHeldOut | None:
    """What the run in ``folder`` held out; None where it keeps nothing of that."""
    path = folder / HELD_OUT_FILE
    if not path.exists():
        return None
    with path.open(encoding="utf8") as file:
        first, *rows = map(json.loads, file)
    return KeptHeldOut(first["task"], first["split"], rows)
