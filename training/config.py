"""All that is said of a model: a recipe, ``training/recipes/MODEL.toml`` for a bundled one, and
``training/recipes/tasks/TASK.toml`` for what a task is trained with where nobody says otherwise.

``[data]`` is what is read; ``[task]`` how it is trained, as its task has it; ``[model]`` is of
its configuration all that the data do not decide; ``[fit]`` is the loop's. What stands under
``[quick.data]``, ``[quick.task]``, ``[quick.model]`` and ``[quick.fit]`` replaces that for
``--quick``. A value ``"auto"`` is chosen by the data (training/tasks/).

Of the model that comes of it, each of them may be left out: ``[sampling]``, what a request that
does not choose gets; ``[export]``, what it is exported in; ``[[goals]]``, what it is to reach on
its held-out split; ``[card]``, what its model card says and shows beside its figures.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from bundle.sampling import SamplingDefaults, problem_of_defaults
from training.ema import AVERAGES
from training.loop import FitSettings
from training.models import Config, DesignInvalid, config_from_json

RECIPES = Path(__file__).parent / "recipes"
TASK_RECIPES = RECIPES / "tasks"
TABLES = ("data", "task", "model", "fit")
AUTO = "auto"  # a value that the data decide
# Of the model that comes of a recipe, whatever the profile.
TABLES_OF_MODEL = ("sampling", "export", "goals", "published", "card")

TaskSettings = TypeVar("TaskSettings")
AnyConfig = TypeVar("AnyConfig", bound=Config)


class RecipeInvalid(Exception):
    """A recipe that cannot be read; the message says where and what would be right."""


@dataclass(frozen=True)
class ExportSettings:
    """int8: whether a run is exported with a step in int8 as well: it is faster and no worse on
    held-out data.
    """

    int8: bool = False


@dataclass(frozen=True)
class Goal:
    """What a figure is to reach.

    figure, split: the name of a figure, and how its split begins. bar: a value in the figure's
    unit. is_error: whether lower is better. beside: what to compare with, and where that is from.
    seeds: of a goal that is one of a mean, the figure of each seed that was trained.
    """

    figure: str
    bar: float
    split: str = ""
    beside: str = ""
    is_error: bool = False
    seeds: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        """Of the seeds; None where the figure of the one that is served counts."""
        return fmean(self.seeds) if self.seeds else None

    def is_met(self, value: float) -> bool:
        return value <= self.bar if self.is_error else value >= self.bar


@dataclass(frozen=True)
class Published:
    """A figure that others report on the same held-out split.

    figure, split: the name of a figure of the model, and how its split begins. by: what reached it.
    source: where that is reported.
    """

    figure: str
    split: str
    value: float
    by: str
    source: str


@dataclass(frozen=True)
class CardSettings:
    """weaknesses: what the model is known to do badly, nothing is said where that is empty.
    alignment: a source, over which it is drawn what each token looks back at.
    units: whether what hidden units follow is drawn, on the held-out text.
    """

    weaknesses: str = ""
    alignment: str = ""
    units: bool = False


@dataclass(frozen=True)
class Recipe:
    """data, task, model, fit: the tables, those of the quick profile merged in where that is
    asked for. sampling: None where the task's own is meant.

    Raises RecipeInvalid, here and in each method, for what a file holds and nobody reads.
    """

    path: Path
    task: Mapping[str, Any]
    model: Mapping[str, Any]
    fit: Mapping[str, Any]
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sampling: SamplingDefaults | None = None
    export: ExportSettings = ExportSettings()
    goals: tuple[Goal, ...] = ()
    published: tuple[Published, ...] = ()
    card: CardSettings = CardSettings()

    def data_settings(self, kind: type[TaskSettings]) -> TaskSettings:
        """The table ``[data]`` as the frozen settings of a task's files."""
        return _filled(kind, self.data, f"{self.path.name}: [data]")

    def task_settings(self, kind: type[TaskSettings]) -> TaskSettings:
        """The table ``[task]`` as the frozen settings of a task; each of them is given."""
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
        except DesignInvalid as error:
            raise RecipeInvalid(f"{self.path.name}: [model]: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """What a run's report keeps of it."""
        return {name: dict(getattr(self, name)) for name in TABLES if getattr(self, name)}

    def to_toml(self) -> str:
        """A recipe file of these tables, to train the same again."""
        content = {**self.to_json(), "sampling": dict(self.sampling or {})}
        return "".join(_toml_table((name,), table) for name, table in content.items() if table)

    def value(self, key: str) -> Any:
        """What stands at ``table.key``, None where nothing does."""
        table, _, rest = key.partition(".")
        value: Any = getattr(self, table, None) if table in TABLES else None
        for name in rest.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def is_auto(self, key: str) -> bool:
        return bool(self.value(key) == AUTO)

    def with_value(self, key: str, value: Any) -> Recipe:
        """With another value at ``table.key``, or ``table.key.key``."""
        table, _, rest = key.partition(".")
        changed: Any = {table: _with(getattr(self, table), rest.split("."), value)}
        return replace(self, **changed)

    def chosen(self, values: Mapping[str, Any]) -> Recipe:
        """With ``values``, by their keys, wherever the recipe leaves the choice to the data."""
        recipe = self
        for key, value in values.items():
            if recipe.is_auto(key):
                recipe = recipe.with_value(key, value)
        return recipe

    def overridden(self, assignments: Sequence[str]) -> Recipe:
        """With ``table.key=value`` of each, a value as TOML writes it, or else a plain text.

        Raises RecipeInvalid as known_key() does.
        """
        recipe = self
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise RecipeInvalid(f"--set {assignment} has no value; write table.key=value")
            recipe = recipe.with_value(self.known_key(key.strip()), _toml_value(text.strip()))
        return recipe

    def known_key(self, key: str) -> str:
        """``key`` itself. Raises RecipeInvalid for one that this recipe does not have, but of
        ``[model]``: its options are more than a recipe names, and checked when it is built.
        """
        if self.value(key) is not None or (key.startswith("model.") and len(key) > len("model.")):
            return key
        near = difflib.get_close_matches(key, list(self.values()), 3, 0.4)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise RecipeInvalid(f"{key} is no key of {self.path.name}{hint}")

    def under(self, own: Recipe) -> Recipe:
        """This one with whatever ``own`` says otherwise. Raises RecipeInvalid as known_key()."""
        recipe = replace(own, **{table: getattr(self, table) for table in TABLES})
        for key, value in own.values().items():
            recipe = recipe.with_value(self.known_key(key), value)
        return recipe

    def values(self) -> dict[str, Any]:
        """Every value by its key, ``table.key``."""
        return {
            ".".join((table, *path)): value
            for table in TABLES
            for path, value in _leaves(getattr(self, table), ())
        }


def load_recipe(path: Path, quick: bool = False) -> Recipe:
    """Raises RecipeInvalid where there is no such file, or no table is what it should be."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RecipeInvalid(f"{path} cannot be read: {error}") from error
    quick_tables = content.pop("quick", {})
    for tables, prefix, known in (
        (content, "", (*TABLES, *TABLES_OF_MODEL)),
        (quick_tables, "quick.", TABLES),
    ):
        unknown = [name for name in tables if name not in known]
        if unknown:
            names = ", ".join(f"[{prefix}{name}]" for name in known)
            raise RecipeInvalid(f"{path.name}: [{prefix}{unknown[0]}] is not one of {names}")
    merged = _merged(content, quick_tables) if quick else content
    where = f"{path.name}: "
    data, task, model, fit = (merged.get(name, {}) for name in TABLES)
    return Recipe(
        path,
        task,
        model,
        fit,
        data,
        sampling=_sampling(content["sampling"], where) if "sampling" in content else None,
        export=_filled(ExportSettings, content.get("export", {}), f"{where}[export]"),
        goals=tuple(_filled(Goal, goal, f"{where}[[goals]]") for goal in content.get("goals", ())),
        published=tuple(
            _filled(Published, one, f"{where}[[published]]") for one in content.get("published", ())
        ),
        card=_filled(CardSettings, content.get("card", {}), f"{where}[card]"),
    )


def _sampling(table: Mapping[str, Any], where: str) -> SamplingDefaults:
    if problem := problem_of_defaults(table):
        raise RecipeInvalid(f"{where}[sampling]: {problem}")
    return table


def models() -> tuple[str, ...]:
    """Every model that has a recipe, in alphabetical order."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def recipe_of(model: str) -> Recipe:
    """The full profile's. Raises RecipeInvalid for a model without one."""
    return load_recipe(RECIPES / f"{model}.toml")


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


def _with(table: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**table, name: _with(table.get(name, {}), rest, value) if rest else value}


def _leaves(
    table: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml_table(path: tuple[str, ...], table: Mapping[str, Any]) -> str:
    """A table and those in it. JSON's texts, numbers, truths and lists are TOML's as well."""
    plain = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    inner = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()]
    written = "\n".join((f"[{'.'.join(path)}]", *lines, "", "")) if plain or not inner else ""
    return written + "".join(_toml_table((*path, name), part) for name, part in inner.items())


def _value(wanted: Any, given: Any, where: str) -> Any:
    if wanted is float and type(given) is int:
        return float(given)
    if get_origin(wanted) is tuple and isinstance(given, list | tuple):
        return tuple(_value(get_args(wanted)[0], part, where) for part in given)
    if given == AUTO and wanted is not str:
        raise RecipeInvalid(f"{where} is 'auto', which nothing here decides; give a value")
    if type(given) is not wanted:
        raise RecipeInvalid(f"{where} is {given!r}, not of type {wanted.__name__}")
    return given
