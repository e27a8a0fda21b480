"""Hyper-parameters of a model, read from a file: ``training/recipes/MODEL.toml``.

``[task]`` is what is read and how it is taught, as the model's script has it; ``[model]`` is of
its configuration all that the data do not decide; ``[fit]`` is the loop's. What stands under
``[quick.task]``, ``[quick.model]`` and ``[quick.fit]`` replaces that for ``--quick``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from training.ema import AVERAGES
from training.loop import FitSettings
from training.models import Config, OptionInvalid, config_from_json

RECIPES = Path(__file__).parent / "recipes"
TABLES = ("task", "model", "fit")

TaskSettings = TypeVar("TaskSettings")
AnyConfig = TypeVar("AnyConfig", bound=Config)


class RecipeInvalid(Exception):
    """A recipe that cannot be read; the message says where and what would be right."""


@dataclass(frozen=True)
class Recipe:
    """task, model, fit: the tables, those of the quick profile merged in where that is asked for.

    Raises RecipeInvalid, here and in each method, for what a file holds and nobody reads.
    """

    path: Path
    task: Mapping[str, Any]
    model: Mapping[str, Any]
    fit: Mapping[str, Any]

    def task_settings(self, kind: type[TaskSettings]) -> TaskSettings:
        """The table ``[task]`` as the frozen settings of a script; each of them is given."""
        return _filled(kind, self.task, f"{self.path.name}: [task]")

    def fit_settings(self, seed: int) -> FitSettings:
        where = f"{self.path.name}: [fit]"
        settings = _filled(FitSettings, {**self.fit, "seed": seed}, where)
        if settings.average not in AVERAGES:
            raise RecipeInvalid(f"{where}: average is not one of {', '.join(AVERAGES)}")
        return settings

    def config(self, kind: type[AnyConfig], **of_data: int) -> AnyConfig:
        """The table ``[model]`` with what the data decide, such as the vocabulary's size."""
        twice = sorted(of_data.keys() & self.model.keys())
        if twice:
            raise RecipeInvalid(f"{self.path.name}: [model]: the data decide {', '.join(twice)}")
        try:
            content = {"architecture": kind.architecture, **self.model, **of_data}
            return cast(AnyConfig, config_from_json(content))
        except OptionInvalid as error:
            raise RecipeInvalid(f"{self.path.name}: [model]: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """What a run's report keeps of it."""
        return {name: dict(getattr(self, name)) for name in TABLES}


def load_recipe(path: Path, quick: bool = False) -> Recipe:
    """Raises RecipeInvalid where there is no such file, or no table is what it should be."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RecipeInvalid(f"{path} cannot be read: {error}") from error
    quick_tables = content.pop("quick", {})
    for tables, prefix in ((content, ""), (quick_tables, "quick.")):
        unknown = [name for name in tables if name not in TABLES]
        if unknown:
            known = ", ".join(f"[{prefix}{name}]" for name in TABLES)
            raise RecipeInvalid(f"{path.name}: [{prefix}{unknown[0]}] is not one of {known}")
    merged = _merged(content, quick_tables) if quick else content
    return Recipe(path, *(merged.get(name, {}) for name in TABLES))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with what ``above`` says otherwise, table by table."""
    merged = dict(below)
    for key, value in above.items():
        table = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if table else value
    return merged


def _filled(kind: type[TaskSettings], table: Mapping[str, Any], where: str) -> TaskSettings:
    """``table`` as a frozen dataclass of plain values."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(table.keys() - fields.keys())
    if unknown:
        raise RecipeInvalid(f"{where}: {unknown[0]!r} is not one of {', '.join(fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in table and field.default is dataclasses.MISSING
    ]
    if missing:
        raise RecipeInvalid(f"{where}: {missing[0]!r} is missing")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], table[name], f"{where}: {name}") for name in table})


def _value(wanted: type, given: Any, where: str) -> Any:
    if wanted is float and type(given) is int:
        return float(given)
    if type(given) is not wanted:
        raise RecipeInvalid(f"{where} is {given!r}, not of type {wanted.__name__}")
    return given
