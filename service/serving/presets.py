"""Presets: named sets of sampling parameters that an operator keeps beside the models."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bundle.sampling import SAMPLING_PARAMETERS, SamplingParameter
from service.access.file_reload import FileUnusable, Renewed, read_file
from service.engine.errors import WrongInput
from service.serving.model_info import ModelCard

# What requests take that choose no preset, in place of what the bundle says.
DEFAULT = "default"
_MODEL = "model"
_PARAMETERS: Mapping[str, SamplingParameter] = {p.name: p for p in SAMPLING_PARAMETERS}

Preset = Mapping[str, float]
# By name, of each model by its name; those of all models under "".
_Sets = Mapping[str, Mapping[str, Preset]]


class Presets:
    """path: a TOML file, read again once it has changed; None for none. failed: called where it
    then cannot be used.

    Raises FileUnusable.
    """

    def __init__(self, path: Path | None = None, failed: Callable[[], None] = lambda: None) -> None:
        self._file = None if path is None else Renewed([path], lambda: _read(path), failed)

    def of(self, card: ModelCard) -> dict[str, Preset]:
        """Those that a request may choose, by name; a model's own before those of all."""
        found = {**self._sets.get("", {}), **self._sets.get(card.name, {})}
        found.pop(DEFAULT, None)
        return found

    def defaults(self, card: ModelCard) -> Preset:
        """What a request of the model that chooses nothing takes, as far as that is known; without
        what its graph does not read."""
        of_all, own = (self._sets.get(name, {}).get(DEFAULT, {}) for name in ("", card.name))
        changed = {**of_all, **own}
        for name in card.missing_parameters:
            changed.pop(name, None)
        return {**card.sampling, **changed}

    def chosen(self, card: ModelCard, name: str) -> Preset:
        """Raises WrongInput for a preset that there is not."""
        known = self.of(card)
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise WrongInput(f"model {card.name!r} has no preset {name[:64]!r}; it has {names}")
        return known[name]

    @property
    def _sets(self) -> _Sets:
        return self._file.get() if self._file else {}


def _read(path: Path) -> _Sets:
    """Raises FileUnusable, which names the place."""
    try:
        content = tomllib.loads(read_file(path, "presets").decode())
    except ValueError as error:
        if isinstance(error, FileUnusable):
            raise
        raise FileUnusable(f"presets: {path} is no TOML ({error})") from error
    models = content.pop(_MODEL, {})
    _expect_tables(path, _MODEL, models)
    found = {"": _presets(path, "", content)}
    for model, presets in models.items():
        found[model] = _presets(path, f"{_MODEL}.{model}.", presets)
    return found


def _presets(path: Path, where: str, content: Any) -> dict[str, Preset]:
    _expect_tables(path, where.rstrip("."), content)
    return {name: _preset(path, where + name, values) for name, values in content.items()}


def _expect_tables(path: Path, where: str, content: Any) -> None:
    for name, value in content.items() if isinstance(content, dict) else (("", content),):
        if not isinstance(value, dict):
            place = ".".join(part for part in (where, name) if part)
            raise FileUnusable(f"presets: {path}: {place} is no table; write [{place}]")


def _preset(path: Path, where: str, values: Mapping[str, Any]) -> Preset:
    for name, value in values.items():
        parameter = _PARAMETERS.get(name)
        if parameter is None:
            known = ", ".join(_PARAMETERS)
            raise FileUnusable(f"presets: {path}: {where}.{name} is none of {known}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FileUnusable(f"presets: {path}: {where}.{name} is {value!r}; write a number")
        if problem := parameter.problem(value):
            raise FileUnusable(f"presets: {path}: {where}: {problem}")
        if parameter.is_whole and value != int(value):
            raise FileUnusable(f"presets: {path}: {where}.{name} is {value}; write a whole number")
    # As the wire has them: a preset gives the bits that its values in a request give.
    return {
        name: int(value) if _PARAMETERS[name].is_whole else float(np.float32(value))
        for name, value in values.items()
    }
