"""Fails when the locks do not hold what pyproject.toml and the Makefile pin, each by its hash.

python -m tests.lock_drift

Reads no index: `make locks` does, and writes the locks anew.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The groups that have a lock of their name.
GROUPS = ("serve", "serve-gpu")

_PINNED = re.compile(r"([\w.-]+)==([^\s;]+)")
_MARKER = r"\(?\w+ [!<>=]+ '[^']*'\)?"
_LOCKED = re.compile(rf"{_PINNED.pattern}( ; {_MARKER}( (and|or) {_MARKER})*)?")
_HASH = re.compile(r"\s+--hash=sha256:[0-9a-f]{64}(?!\S)")


@dataclass(frozen=True)
class Locked:
    version: str
    hashes: int


def drifted(root: Path = ROOT) -> list[str]:
    """What is wrong with the locks of the project in ``root``, a line each."""
    pins = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    wanted = {group: _pins(pins, group) for group in GROUPS}
    (pip,) = re.findall(r"^PIP_VERSION := (\S+)$", (root / "Makefile").read_text(), re.MULTILINE)
    wanted["pip"] = [f"pip=={pip}"]
    return [
        f"{name}.txt: {wrong}"
        for name, requirements in wanted.items()
        for wrong in _wrong(root / "deploy" / "locks" / f"{name}.txt", requirements)
    ]


def _pins(groups: dict[str, Any], name: str) -> list[str]:
    """The requirements of a group and of those that it includes."""
    found: list[str] = []
    for entry in groups[name]:
        found += [entry] if isinstance(entry, str) else _pins(groups, entry["include-group"])
    return found


def _wrong(path: Path, requirements: list[str]) -> list[str]:
    if not path.exists():
        return ["is missing"]
    locked, wrong = _read(path)
    for requirement in requirements:
        match = _PINNED.fullmatch(requirement.partition(";")[0].rstrip())
        if not match:
            wrong.append(f"{requirement} is not pinned by ==")
            continue
        name, version = match.groups()
        found = locked.get(_plain(name))
        if found is None or found.version != version:
            wrong.append(f"{requirement} is pinned, {found.version if found else 'none'} is locked")
    wrong += [f"{name} has no hash" for name, found in locked.items() if not found.hashes]
    return wrong


def _read(path: Path) -> tuple[dict[str, Locked], list[str]]:
    """What is locked, by name, and the lines that lock nothing: pip would act on them as well."""
    text = re.sub(r"(^|\s)#.*", "", path.read_text(), flags=re.MULTILINE)
    locked, wrong = {}, []
    for line in text.replace("\\\n", " ").splitlines():
        requirement, hashes = _HASH.subn("", line)
        match = _LOCKED.fullmatch(requirement.strip())
        if match:
            locked[_plain(match[1])] = Locked(match[2], hashes)
        elif line.strip():
            wrong.append(f"{line.strip()!r} is neither a pin nor its hash")
    return locked, wrong


def _plain(name: str) -> str:
    """As package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if found := drifted():
        sys.exit("\n".join([*found, "the locks have drifted; run `make locks`"]))
