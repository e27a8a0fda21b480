"""What a model of the study is trained from, and the run that trains it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.loop import CHECKPOINT
from training.run import Run


@dataclass(frozen=True)
class Learner:
    """A design that learns a data set, at whatever learning rate and with whatever seed.

    section: that it is trained for. dataset: which data it learns, and so which of the study's
    data sets trains it. design: as that dataset names its designs.
    """

    section: str
    dataset: str
    design: str

    @property
    def model(self) -> str:
        """The name of its model and bundle."""
        return f"{self.dataset}-{self.design}"

    def recipe(self, learning_rate: float, seed: int) -> Recipe:
        return Recipe(self, learning_rate, seed)


@dataclass(frozen=True)
class Recipe:
    """One training run of a learner."""

    learner: Learner
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.learner.model}-{self.learning_rate:g}-{self.seed}"


@dataclass(frozen=True)
class StudyRun(Run):
    """A training run whose command is the study's."""

    section: str = ""
    learning_rate: float = 0.0

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
    learner = recipe.learner
    return StudyRun(
        learner.model, quick, (folder / CHECKPOINT).exists(), recipe.seed, folder, data,
        section=learner.section, learning_rate=recipe.learning_rate,
    )  # fmt: skip
