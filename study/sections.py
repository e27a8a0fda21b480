"""What a section of the study is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.artifact_cache import ArtifactCache, Found
from study.recipes import Recipe
from study.settings import Settings
from study.trainer import Trainer


@dataclass(frozen=True)
class Study:
    """What a section measures with. models: the bundled ones."""

    settings: Settings
    cache: ArtifactCache
    trainer: Trainer
    models: Path


@dataclass(frozen=True)
class Section:
    """One argument of the lecture.

    recipes: of the models it needs. measure: what it finds, as JSON holds it. render: that as
    Markdown, without the title. draw: its figure into a file, where it has one.
    """

    name: str
    title: str
    measure: Callable[[Study], Found]
    render: Callable[[Found], str]
    recipes: Callable[[Settings], list[Recipe]] = lambda settings: []
    draw: Callable[[Found, Path], object] | None = None
