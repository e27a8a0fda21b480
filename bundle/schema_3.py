"""Manifests of schema 3, which say in English what schema 4 says in fields.

All that is read out of a sentence is read here: how a figure was decoded, in which precision and
of which profile. Once no bundle of schema 3 is served any more, this file goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

VERSION = 3

_BEAM = re.compile(r"\bbeam of (\d+)")
_ONE_BY_ONE = "token by token"


def upgraded(content: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The JSON of a manifest of schema 3 as that of schema ``version``.

    What is not of the type that a manifest has is left as it is, to be refused by name later.
    """
    newer = {**content, "schema_version": version}
    training = content.get("training")
    if isinstance(training, Mapping):
        newer["training"] = with_profile(training)
    if isinstance(content.get("figures"), list):
        newer["figures"] = [with_fields(figure) for figure in content["figures"]]
    if isinstance(content.get("precisions"), Mapping):
        newer["precisions"] = {
            name: {**spec, "figures": [with_fields(figure) for figure in spec["figures"]]}
            if isinstance(spec, Mapping) and isinstance(spec.get("figures"), list)
            else spec
            for name, spec in content["precisions"].items()
        }
    return newer


def with_fields(figure: Any) -> Any:
    """A figure's JSON with ``beam``, ``precision`` and ``profile``, where it lacks them."""
    if not isinstance(figure, Mapping):
        return figure
    name, split, command = (str(figure.get(key, "")) for key in ("name", "split", "command"))
    found = {
        "beam": _beam(split),
        "precision": "int8" if name.endswith(", int8") else "fp32",
        "profile": _profile(command),
    }
    return {**found, **figure}


def with_profile(training: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a training with ``profile``, where they lack it."""
    return {**training, "profile": training.get("profile", _profile(training.get("command", "")))}


def _beam(split: str) -> int | None:
    found = _BEAM.search(split)
    return int(found[1]) if found else 1 if _ONE_BY_ONE in split else None


def _profile(command: object) -> str:
    return "quick" if "--quick" in str(command).split() else "full"
