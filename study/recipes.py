"""What a model of the study is trained from, and the run that trains it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.loop import CHECKPOINT
from training.run import Run


@dataclass(frozen=True)
class Recipe:
    """name: of the model, its folder and its bundle. section: that it is trained for.
    dataset: which data it learns, and so which of the study's data sets trains it.
    design: as that dataset names its designs.
    """

    name: str
    section: str
    dataset: str
    design: str
    seed: int


@dataclass(frozen=True)
class StudyRun(Run):
    """A training run whose command is the study's."""

    section: str = ""

    @property
    def command(self) -> str:
        return command_of(self.section, self.quick)


class Dataset(Protocol):
    """One data set, and the designs that are trained on it."""

    def train(self, run: StudyRun, design: str) -> None:
        """Train ``design`` and leave the model in the run's folder."""


def command_of(section: str, quick: bool) -> str:
    return f"python -m study --only {section}{' --quick' if quick else ''}"


def run_of(recipe: Recipe, folder: Path, data: Path, quick: bool) -> StudyRun:
    """Goes on from a checkpoint where there is one."""
    resume = (folder / CHECKPOINT).exists()
    return StudyRun(recipe.name, quick, resume, recipe.seed, folder, data, section=recipe.section)
