"""Turns a recipe into a trained model in the artifact cache."""

from __future__ import annotations

import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from study.artifact_cache import ArtifactCache
from study.characters import CharacterDataset
from study.recipes import Dataset, Recipe, run_of
from study.sentences import SentenceDataset
from study.settings import Settings
from study.spelling import SpellingDataset
from training.loop import CHECKPOINT, ResumeImpossible


@dataclass(frozen=True)
class Trainer:
    """root: of the artifact cache. data: folder of the data packages.

    The attributes named after data sets are what Recipe.dataset names.
    """

    settings: Settings
    root: Path
    data: Path

    @cached_property
    def cache(self) -> ArtifactCache:
        return ArtifactCache(self.root, self.settings)

    @cached_property
    def sentences(self) -> SentenceDataset:
        return SentenceDataset(self.settings.sentences, self.data)

    @cached_property
    def characters(self) -> CharacterDataset:
        return CharacterDataset(self.settings.characters, self.data)

    @cached_property
    def spelling(self) -> SpellingDataset:
        return SpellingDataset(self.settings.spelling, self.data)

    def train(self, recipe: Recipe) -> None:
        """Its own output goes into log.txt of the model's folder. Raises TrainingStopped."""
        folder = self.cache.prepare(recipe)
        started = time.process_time()
        with (
            (folder / "log.txt").open("a") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                self._train(recipe, folder)
            except ResumeImpossible:
                (folder / CHECKPOINT).unlink()
                self._train(recipe, folder)
            finally:
                self.cache.add_seconds(recipe, time.process_time() - started)

    def _train(self, recipe: Recipe, folder: Path) -> None:
        dataset: Dataset = getattr(self, recipe.learner.dataset)
        run = run_of(recipe, folder, self.data, self.settings.quick)
        dataset.train(run, recipe.learner.design)
