"""What a study reuses between runs: trained models and measured sections, by their settings."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study.recipes import Learner, Recipe
from study.settings import Settings
from training.checkpoint import MODEL_FILE, TrainedModel
from training.loop import History

_REQUEST, _SECONDS = "request.json", "seconds.txt"

# What of a data set's settings chooses the recipe, and does not change the model it makes.
_CHOOSING = ("seeds", "learning_rate", "most_rates")

Found = dict[str, Any]  # what a section measured, as JSON has it


class ArtifactCache:
    """Folders under ``root``: trained/NAME of each model, sections/NAME.json, models/ of bundles.

    Whatever was made with other settings counts as missing.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings

    @property
    def bundles(self) -> Path:
        return self.root / "models"

    def folder_of(self, recipe: Recipe) -> Path:
        return self.root / "trained" / recipe.name

    def has_model(self, recipe: Recipe) -> bool:
        folder = self.folder_of(recipe)
        return (folder / MODEL_FILE).exists() and _read(folder) == self._request(recipe)

    def prepare(self, recipe: Recipe) -> Path:
        """The model's folder, emptied where what lies there is of another recipe."""
        folder = self.folder_of(recipe)
        if _read(folder) != self._request(recipe):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _REQUEST).write_text(json.dumps(self._request(recipe)))
        return folder

    def discard_models(self, learner: Learner) -> None:
        """Of every rate and seed."""
        for folder in (self.root / "trained").glob(f"{learner.model}-*"):
            if _read(folder).get("recipe", {}).get("learner") == asdict(learner):
                shutil.rmtree(folder)

    def discard_section(self, section: str) -> None:
        self._section(section).unlink(missing_ok=True)

    def trained(self, recipe: Recipe) -> TrainedModel:
        return TrainedModel.load(self.folder_of(recipe))

    def history(self, recipe: Recipe) -> History:
        report = json.loads((self.folder_of(recipe) / "report.json").read_text())
        return History(**report["history"])

    def add_seconds(self, recipe: Recipe, seconds: float) -> None:
        """CPU time of one training, or of a part of it where it was stopped."""
        with (self.folder_of(recipe) / _SECONDS).open("a") as spent:
            spent.write(f"{seconds:.3f}\n")

    def seconds(self) -> list[float]:
        """CPU time of each model that is trained."""
        return [
            sum(map(float, (path.parent / _SECONDS).read_text().split()))
            for path in (self.root / "trained").glob(f"*/{MODEL_FILE}")
        ]

    def load_section(self, section: str) -> Found | None:
        """What was measured of a section with these settings."""
        path = self._section(section)
        stored = json.loads(path.read_text()) if path.exists() else {}
        found: Found | None = stored.get("found")
        return found if stored.get("settings") == _plain(asdict(self.settings)) else None

    def store_section(self, section: str, found: Found) -> Found:
        """``found`` as it will be read back."""
        path = self._section(section)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = _plain({"settings": asdict(self.settings), "found": found})
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        os.replace(partial, path)
        stored: Found = content["found"]
        return stored

    def _section(self, name: str) -> Path:
        return self.root / "sections" / f"{name}.json"

    def _request(self, recipe: Recipe) -> Any:
        settings = asdict(self.settings)[recipe.learner.dataset]
        settings = {name: value for name, value in settings.items() if name not in _CHOOSING}
        return _plain({"recipe": asdict(recipe), "settings": settings})


def _read(folder: Path) -> Any:
    """The request that the model in ``folder`` was trained for."""
    path = folder / _REQUEST
    return json.loads(path.read_text()) if path.exists() else {}


def _plain(content: Any) -> Any:
    """As JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(content))
