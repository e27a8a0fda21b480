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

from bundle.manifest import QUICK
from training import config
from training.budget import within_minutes
from training.bundled import bundled_task
from training.card import write_card
from training.checkpoint import Figure, TrainedModel
from training.config import Recipe, RecipeInvalid, load_recipe
from training.held_out import HeldOut
from training.loop import FitSettings
from training.measurements import Measurement
from training.models import config_to_json
from training.run import Run
from training.splits import Splits
from training.tasks import TASKS
from training.tasks.base import Prepared, Task

RECIPE_FILE, HELD_OUT_FILE = "recipe.toml", "held-out.jsonl"
# What a number of minutes decides of [fit].
_BUDGETED = ("epochs", "parts", "patience")


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
    def recipe(self) -> Recipe:
        assert self.chosen is not None, "a run of a task has its recipe"
        return self.chosen

    @property
    def _has_recipe(self) -> bool:
        return True


def train_task(run: TaskRun, task: Task[Any]) -> None:
    """Raises DataInvalid and RecipeInvalid before anything is trained; otherwise as Run.fit()."""
    splits, facts = task.read(run.recipe)
    prepared = task.prepare(run.recipe, splits, run.seed)
    recipe = prepared.recipe
    if run.minutes:
        if run.team.size > 1:
            raise RecipeInvalid(
                "--minutes times one process; give --set fit.epochs=N where several train"
            )
        recipe = _within_budget(run, prepared)
    run, settings = replace(run, chosen=recipe), recipe.fit_settings(run.seed)
    untrained = _untrained(run, task, prepared)
    # Whatever is wrong with what is held out is said before the time is spent.
    held_out = task.held_out(splits.held_out, untrained)
    if run.team.is_leader:
        _print_facts(run, [*facts, *prepared.facts], settings)
        _keep(run, task, splits)
    if prepared.fit is not None:
        model, history = prepared.fit(run, settings)
    else:
        model, history = run.fit(prepared.build, prepared.config, prepared.training, settings)
    adjusted = task.adjust(model, recipe, splits, untrained)
    prepared.finish(model)
    trained = replace(
        adjusted,
        # Finishing may change it: a model remembers more examples than it was trained with.
        config=config_to_json(getattr(model, "config", prepared.config)),
        weights=model.state_dict(),
        training={**run.facts(model, history), **adjusted.training},
    )
    held_out = task.held_out(splits.held_out, trained)
    by_beam = {beam: task.answers(model, trained, held_out.questions, beam) for beam in task.beams}
    measured = [found for said in by_beam.values() for found in held_out.measure(said)]
    figures = _figures(task, held_out, measured, splits.name, run.command)
    floors = _floors(task, splits, trained, held_out)
    trained = replace(trained, figures=figures).with_facts({"floors": floors})
    run.finish(trained, history)
    _print_floors(trained)
    answers = next(iter(by_beam.values()))
    write_card(run.folder, task, trained, held_out, measured, answers)
    print(f"{run.folder / 'card.md'} has all of it; next: python -m export {run.model}")


def _untrained(run: TaskRun, task: Task[Any], prepared: Prepared) -> TrainedModel:
    """All that is known of the model before it is trained."""
    return TrainedModel(
        name=run.model,
        description=run.recipe.data.get("description") or prepared.description,
        config=config_to_json(prepared.config),
        weights={},
        tokenizers=dict(prepared.tokenizers),
        labels=prepared.labels,
        vector=prepared.vector,
        series=prepared.series,
        frames=prepared.frames,
        limits=dict(prepared.limits),
        data=task.sources(run.recipe),
        training={"seed": run.seed},
    )


def _within_budget(run: TaskRun, prepared: Prepared) -> Recipe:
    """The recipe with as many epochs as fit; of a resumed run, with those that it began with."""
    kept = run.folder / RECIPE_FILE
    if run.resume and kept.exists():
        values = load_recipe(kept).fit
        chosen = {name: values[name] for name in _BUDGETED}
    else:
        settings = prepared.recipe.fit_settings(run.seed)
        model = prepared.build(prepared.config)
        settings = within_minutes(settings, model, prepared.training, run.minutes)
        chosen = {name: getattr(settings, name) for name in _BUDGETED}
    recipe = prepared.recipe
    for name, value in chosen.items():
        recipe = recipe.with_value(f"fit.{name}", value)
    return recipe


def figures_of(
    kept: HeldOutExamples, trained: TrainedModel, model: Any, command: str
) -> tuple[Figure, ...]:
    """The held-out figures of ``model``, which is called as ``trained`` is built."""
    task, held_out = kept.task, kept.questions(trained)
    measured = [
        found
        for beam in task.beams
        for found in held_out.measure(task.answers(model, trained, held_out.questions, beam))
    ]
    return _figures(task, held_out, measured, kept.split, command)


def _figures(
    task: Task[Any],
    held_out: HeldOut[Any, Any],
    measured: Sequence[Measurement],
    split: str,
    command: str,
) -> tuple[Figure, ...]:
    """measured: the figures of each of the task's beams."""
    names = [(figure, beam) for beam in task.beams for figure in held_out.figures]
    return tuple(
        Figure(
            figure.name, found.value, figure.unit,
            task.split_name(figure.split or split, beam), found.examples, command, beam,
        )
        for (figure, beam), found in zip(names, measured, strict=True)
    )  # fmt: skip


def floors_of(kept: HeldOutExamples, trained: TrainedModel) -> list[dict[str, Any]] | None:
    """What the held-out figures are without a network, as a manifest keeps it: ``figure``,
    ``split``, ``floor`` (what answered) and ``value`` each.

    None where the rows that train are not at hand: a run of files keeps what it held out alone.
    """
    if kept.splits is None:
        return None
    return _floors(kept.task, kept.splits, trained, kept.questions(trained))


def _floors(
    task: Task[Any], splits: Splits[Any], trained: TrainedModel, held_out: HeldOut[Any, Any]
) -> list[dict[str, Any]]:
    # A figure of another split begins otherwise; those of several beams begin alike.
    return [
        {
            "figure": figure.name,
            "split": figure.split or splits.name,
            "floor": floor,
            "value": found.value,
        }
        for floor, said in task.floors(splits, trained, held_out.questions).items()
        # Of answers without probabilities their calibration is not measured.
        for figure, found in zip(held_out.figures, held_out.measure(said), strict=False)
    ]


def _print_facts(run: TaskRun, facts: Sequence[tuple[str, str]], settings: FitSettings) -> None:
    epochs = f"{settings.epochs} at most, learning rate {settings.learning_rate:g}"
    if settings.parts > 1:
        epochs += f", each a part of {settings.parts} of a reading"
    if settings.epochs < settings.parts:
        share = settings.epochs / settings.parts
        epochs += f"; that reads {share:.0%} of the training rows, once: give more --minutes"
    print(f"{run.model}: what was inferred (--set table.key=value chooses otherwise)")
    for what, value in [*facts, ("epochs", epochs)]:
        print(f"  {what:<9} {value}")


def _print_floors(trained: TrainedModel) -> None:
    units = {figure.name: figure.unit for figure in trained.figures}
    for floor in trained.training["floors"]:
        unit = units[floor["figure"]]
        split = f", {floor['split']}" if floor["split"] else ""
        print(f"  floor: {floor['figure']} {floor['value']:.4f} {unit} by {floor['floor']}{split}")


def _keep(run: TaskRun, task: Task[Any], splits: Splits[Any]) -> None:
    """What the same is trained and measured with again; of a package, the recipe alone."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / RECIPE_FILE).write_text(run.recipe.to_toml(), encoding="utf8")
    if task.packages:
        return
    with (run.folder / HELD_OUT_FILE).open("w", encoding="utf8") as file:
        first = {"task": task.command, "split": splits.name, "examples": len(splits.held_out)}
        for content in (first, *map(task.example_to_json, splits.held_out)):
            file.write(json.dumps(content, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class HeldOutExamples:
    """What was held out of a model's data. split: its name. splits: all of the data; None where
    what was held out is all that is kept.
    """

    task: Task[Any]
    split: str
    examples: Sequence[Any]
    splits: Splits[Any] | None = None

    def questions(self, trained: TrainedModel) -> HeldOut[Any, Any]:
        return self.task.held_out(self.examples, trained)


def kept_held_out(folder: Path) -> HeldOutExamples | None:
    """What the run in ``folder`` held out; None where it keeps nothing of that."""
    path = folder / HELD_OUT_FILE
    if not path.exists():
        return None
    with path.open(encoding="utf8") as file:
        first, *rows = map(json.loads, file)
    task = TASKS[first["task"]]
    return HeldOutExamples(task, first["split"], [task.example_from_json(row) for row in rows])


def adjusted(trained: TrainedModel, data: Path, run: Path | None = None) -> TrainedModel | None:
    """``trained`` with what its task chooses by what validates, chosen anew, as its recipe says.

    run: the folder of its training, ``runs/NAME`` for None. None where no recipe of it is known.
    Raises DataUnavailable and DataInvalid as reading its data does.
    """
    task, path = bundled_task(trained.name), config.RECIPES / f"{trained.name}.toml"
    quick = trained.training.get("profile") == QUICK
    if task is not None:
        recipe = load_recipe(path, quick).with_value("data.folder", str(data))
    else:
        path = (run or Path("runs") / trained.name) / RECIPE_FILE
        if not path.exists():
            return None
        task, recipe = _task_of(path.parent, trained), load_recipe(path)
    model = trained.build()
    splits, _ = task.read(recipe)
    found = task.adjust(model, recipe, splits, trained)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return replace(
        found.with_facts({"parameters": parameters}),
        description=recipe.data.get("description") or trained.description,
        config=config_to_json(model.config),
        weights=model.state_dict(),
    )


def _task_of(run: Path, trained: TrainedModel) -> Task[Any]:
    """That of the run's command: a task of a manifest may have several."""
    path = run / HELD_OUT_FILE
    if not path.exists():
        return TASKS[trained.task]
    with path.open(encoding="utf8") as file:
        return TASKS[json.loads(next(file))["task"]]


def bundled_held_out(model: str, quick: bool, data: Path) -> HeldOutExamples | None:
    """What the recipe of a bundled model holds out; None for another model.

    Raises DataUnavailable where its package cannot be had.
    """
    task = bundled_task(model)
    if task is None:
        return None
    recipe = load_recipe(config.RECIPES / f"{model}.toml", quick)
    splits, _ = task.read(recipe.with_value("data.folder", str(data)))
    return HeldOutExamples(task, splits.name, splits.held_out, splits)


def held_out_examples(
    trained: TrainedModel, data: Path, run: Path | None = None
) -> HeldOutExamples | None:
    """What was held out of a model's training: of its package, or as its run keeps it.

    run: its folder, ``runs/NAME`` for None. None of neither. Raises DataUnavailable.
    """
    quick = trained.training.get("profile") == QUICK
    found = bundled_held_out(trained.name, quick, data)
    found = found or kept_held_out(run or Path("runs") / trained.name)
    return found if found is not None and found.task.name == trained.task else None
