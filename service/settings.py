"""Settings: defaults, file, environment and flags.

A later one of these wins: default, file (TOML, by ``--config`` or ``UNROLL_CONFIG``), environment
(``UNROLL_NAME``), flag (``--name``). What is unknown or cannot be read stops the start.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from service.config import Config, ConfigInvalid

PREFIX = "UNROLL_"
FILE_VARIABLE = PREFIX + "CONFIG"
# Of the client, which may run in the same environment.
CLIENT_PREFIX = PREFIX + "CLIENT_"

_FIELDS = {field.name: field for field in dataclasses.fields(Config)}
_TYPES = get_type_hints(Config)
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Settings:
    """origins: where each setting that is no default was set."""

    config: Config
    origins: Mapping[str, str]

    def as_toml(self) -> str:
        """A file that gives this configuration, each line with where it comes from."""
        lines = []
        for name in _FIELDS:
            value = getattr(self.config, name)
            origin = self.origins.get(name, "default")
            shown = f"{name} = {_toml(value)}" if value is not None else f"# {name} ="
            lines.append(f"{shown}  # {origin}")
        return "\n".join(lines)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting; one that is not given is None."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file of settings (or {FILE_VARIABLE})"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="TOML file of all settings and their sources, on standard output; nothing is served",
    )
    for name, field in _FIELDS.items():
        flag = "--" + name.replace("_", "-")
        shown = "none" if field.default is None else str(field.default).lower()
        text = f"{field.metadata['text']} (default: {shown or 'empty'})".replace("%", "%%")
        if _TYPES[name] is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            parser.add_argument(flag, metavar=_metavar(name), help=text)


def read_settings(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """flags: by name, with ``config`` among them; None for one that was not given.

    Raises ConfigInvalid, which names the setting and where it was set.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(name: str, value: Any, origin: str) -> None:
        values[name], origins[name] = _read(name, value, origin), origin

    path = flags.get("config") or environment.get(FILE_VARIABLE)
    for name, value in _of_file(Path(path)).items() if path else ():
        take(name, value, f"{path}: {name}")
    for variable, value in sorted(environment.items()):
        if setting := _name_of(variable):
            take(setting, value, variable)
    for name in _FIELDS:
        if (value := flags.get(name)) is not None:
            take(name, value, "--" + name.replace("_", "-"))
    return Settings(Config(**values), origins)


def _of_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"config: {path} cannot be read ({error})") from error
    for key in content:
        if key not in _FIELDS:
            raise ConfigInvalid(f"{path}: {key!r} is no setting{_nearest(key)}")
    return content


def _name_of(variable: str) -> str | None:
    """The setting that a variable of the environment sets; None for one that is not ours."""
    if (
        not variable.startswith(PREFIX)
        or variable.startswith(CLIENT_PREFIX)
        or variable == FILE_VARIABLE
    ):
        return None
    name = variable.removeprefix(PREFIX).lower()
    if name not in _FIELDS or variable != PREFIX + name.upper():
        raise ConfigInvalid(f"{variable} in the environment is no setting{_nearest(name)}")
    return name


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), _FIELDS, n=1)
    known = "python -m service serve --help lists them"
    return f"; is {near[0]!r} meant? {known}" if near else f"; {known}"


def _read(name: str, value: Any, origin: str) -> Any:
    """``value`` as the setting's type; text from the environment or a flag is parsed."""
    kind = _TYPES[name]
    if kind in (Path, Path | None):
        if isinstance(value, str) and (value or kind is not Path):
            return Path(value) if value else None
        wanted = "a path"
    else:
        read = _parsed(kind, value)
        if read is not None:
            return read
        wanted = _WORDS[kind]
    raise ConfigInvalid(f"{origin} is {value!r}; {name} takes {wanted}")


def _parsed(kind: type, value: Any) -> Any:
    """None where it is no such thing."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    if not isinstance(value, str):
        return None
    if kind is bool:
        return _BOOLEANS.get(value.strip().lower())
    try:
        return kind(value)
    except ValueError:
        return None


def _metavar(name: str) -> str:
    kind = _TYPES[name]
    if choices := _FIELDS[name].metadata["among"]:
        return "|".join(choices)
    return {int: "N", float: "X", str: "TEXT"}.get(kind, "PATH")


def _toml(value: Any) -> str:
    # A JSON string is a TOML one, and so are its numbers and booleans.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
