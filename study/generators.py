"""The character models that more than one section looks at."""

from __future__ import annotations

from collections.abc import Iterable

from study.recipes import Recipe
from study.settings import Settings

# The section that a design is trained for; others use it as well.
_SECTIONS = {
    "output": "forcing",
    "rnn": "forcing",
    "gru": "forcing",
    "lstm": "forcing",
    "stacked": "depth",
    "mlps": "depth",
    "mlps-skip": "depth",
}


def name_of(design: str) -> str:
    return f"characters-{design}"


def recipes_of(designs: Iterable[str], settings: Settings) -> list[Recipe]:
    seed = settings.characters.seed
    return [
        Recipe(name_of(design), _SECTIONS[design], "characters", design, seed) for design in designs
    ]
