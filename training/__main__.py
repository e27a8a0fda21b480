"""Train on files of your own, or a bundled model anew.

python -m training TASK --name NAME --data FILE      a task on a file, into runs/NAME
python -m training MODEL                             a bundled model, into runs/MODEL
python -m training recipe TASK                       a task's default recipe, every key explained
python -m training runs                              the runs there are
python -m training compare RUN RUN                   two runs' settings and curves side by side
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import config
from training.bundled import bundled_task
from training.config import TASK_RECIPES, Recipe, RecipeInvalid, load_recipe, models
from training.data.packages import DATA_FOLDER
from training.ddp import joined_team
from training.run import started
from training.run_table import compare_runs, list_runs
from training.task_run import TaskRun, train_task
from training.tasks import TASKS, Task

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
RECIPE, RUNS, COMPARE = "recipe", "runs", "compare"


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = _parser().parse_args(given)
    if chosen.command == RECIPE:
        print(_recipe_path(chosen.of).read_text(encoding="utf8"), end="")
        return 0
    if chosen.command == RUNS:
        return list_runs(chosen.folder)
    if chosen.command == COMPARE:
        return compare_runs(chosen.first, chosen.second, chosen.folder)
    if chosen.command in TASKS:
        return _train_on_files(TASKS[chosen.command], chosen, given)
    return _train_bundled(chosen, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=f"Bundled models, to be trained anew by their name: {', '.join(models())}.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for task in TASKS.values():
        command = commands.add_parser(task.command, help=task.help)
        _add_file_options(command, task)
        _add_options(command)
    for model in models():
        command = commands.add_parser(model)  # without help: the description lists them
        command.add_argument("--data", type=Path, help="folder of data packages (default: .data)")
        _add_options(command)
    recipe = commands.add_parser(RECIPE, help="default recipe of a task, every key explained")
    recipe.add_argument("of", metavar="TASK", choices=[*TASKS, *models()])
    runs = commands.add_parser(RUNS, help="list of the runs")
    compare = commands.add_parser(COMPARE, help="settings and curves of two runs side by side")
    compare.add_argument("first", metavar="RUN", help="name or folder of a run")
    compare.add_argument("second", metavar="RUN", help="name or folder of another")
    for command in (runs, compare):
        command.add_argument(
            "--folder", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
        )
    return parser


def _add_file_options(parser: argparse.ArgumentParser, task: Task[Any]) -> None:
    parser.add_argument("--name", required=True, type=_name, help="name of the model")
    parser.add_argument("--data", required=True, help="name of a file, or a pattern in quotes")
    for field in dataclasses.fields(task.data):
        if "help" in field.metadata:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=type(field.default),
                help=_help_of(field),
            )
    for name, flag in task.flags.items():
        taken: dict[str, Any] = {}
        if flag.value is not None:
            taken = {"action": "store_const", "const": flag.value}
        parser.add_argument(f"--{name}", help=flag.help, **taken)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE",
        help="any key of the recipe; may be given several times",
    )  # fmt: skip
    parser.add_argument("--recipe", type=Path, help="recipe file (default: what `recipe` prints)")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="minutes that training may take (default: any)"
    )
    parser.add_argument("--quick", action="store_true", help="small model, for a first try")
    parser.add_argument(
        "--resume", action="store_true", help="continuation from the last checkpoint"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of weights, batches and dropout (default: 1)"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/NAME)")


def _help_of(field: dataclasses.Field[Any]) -> str:
    help_ = str(field.metadata["help"])
    return (
        help_ if "default" in help_ or not field.default else f"{help_} (default: {field.default})"
    )


def _name(text: str) -> str:
    """A model's name is a folder's, and comes in URLs."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name; use small letters, digits and - . _ within"
        )
    if text in (*TASKS, *models(), RECIPE, RUNS, COMPARE):
        raise argparse.ArgumentTypeError(f"{text!r} is taken; choose another name")
    return text


def _recipe_path(of: str) -> Path:
    return (TASK_RECIPES if of in TASKS else config.RECIPES) / f"{of}.toml"


def recipe_of_command(task: Task[Any], chosen: argparse.Namespace) -> Recipe:
    """With what the command says of the data and sets otherwise. Raises RecipeInvalid."""
    recipe = load_recipe(_recipe_path(task.command), chosen.quick)
    if chosen.recipe:
        recipe = recipe.under(load_recipe(chosen.recipe, chosen.quick))
    recipe = recipe.with_value("data.files", chosen.data)
    for field in dataclasses.fields(task.data):
        if (value := getattr(chosen, field.name, None)) is not None:
            recipe = recipe.with_value(f"data.{field.name}", value)
    for name, flag in task.flags.items():
        if (value := getattr(chosen, name.replace("-", "_"))) is not None:
            recipe = recipe.with_value(flag.key, value)
    return recipe.overridden(chosen.set)


def _train_on_files(task: Task[Any], chosen: argparse.Namespace, given: Sequence[str]) -> int:
    try:
        recipe = recipe_of_command(task, chosen)
    except RecipeInvalid as error:
        print(f"{chosen.name}: {error}", file=sys.stderr)
        return 1
    return _train(task, chosen.name, recipe, chosen, given)


def _train_bundled(chosen: argparse.Namespace, given: Sequence[str]) -> int:
    model = chosen.command
    try:
        recipe = load_recipe(chosen.recipe or _recipe_path(model), chosen.quick)
        task = bundled_task(model)
        if task is None:
            raise RecipeInvalid(f"{model}.toml: [data] names no module that reads its packages")
        if chosen.data:
            recipe = recipe.with_value("data.folder", str(chosen.data))
        recipe = recipe.overridden(chosen.set)
    except RecipeInvalid as error:
        print(f"{model}: {error}", file=sys.stderr)
        return 1
    return _train(task, model, recipe, chosen, given)


def _train(
    task: Task[Any],
    name: str,
    recipe: Recipe,
    chosen: argparse.Namespace,
    given: Sequence[str],
) -> int:
    if chosen.minutes < 0:
        print(f"{name}: --minutes is {chosen.minutes:g}; choose a number above 0", file=sys.stderr)
        return 1
    # The quick profile of a bundled model has a folder of its own.
    is_quick_bundled = chosen.quick and name in models()
    folder = chosen.out or Path("runs") / (f"{name}-quick" if is_quick_bundled else name)
    command = shlex.join(["python", "-m", "training", *(a for a in given if a != "--resume")])
    with joined_team() as team:
        run = TaskRun(
            name, chosen.quick, chosen.resume, chosen.seed, folder, DATA_FOLDER, None, team,
            recipe, command, chosen.minutes,
        )  # fmt: skip
        return started(lambda run: train_task(run, task), run)


if __name__ == "__main__":
    sys.exit(main())
