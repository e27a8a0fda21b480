"""What a study reuses between runs: trained models and measured sections, by their settings."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study.recipes import Recipe
from study.settings import Settings
from training.checkpoint import MODEL_FILE, TrainedModel
from training.loop import History

_REQUEST = "request.json"

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

    def folder_of(self, name: str) -> Path:
        return self.root / "trained" / name

    def has_model(self, recipe: Recipe) -> bool:
        folder = self.folder_of(recipe.name)
        return (folder / MODEL_FILE).exists() and _read(folder) == self._request(recipe)

    def prepare(self, recipe: Recipe) -> Path:
        """The model's folder, emptied where what lies there is of another recipe."""
        folder = self.folder_of(recipe.name)
        if _read(folder) != self._request(recipe):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _REQUEST).write_text(json.dumps(self._request(recipe)))
        return folder

    def discard_model(self, recipe: Recipe) -> None:
        shutil.rmtree(self.folder_of(recipe.name), ignore_errors=True)

    def discard_section(self, section: str) -> None:
        self._section(section).unlink(missing_ok=True)

    def trained(self, name: str) -> TrainedModel:
        return TrainedModel.load(self.folder_of(name))

    def history(self, name: str) -> History:
        report = json.loads((self.folder_of(name) / "report.json").read_text())
        return History(**report["history"])

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
        settings = asdict(self.settings)[recipe.dataset]
        settings.pop("seeds", None)  # others' seeds do not change this model
        return _plain({"recipe": asdict(recipe), "settings": settings})


def _read(folder: Path) -> Any:
    """The request that the model in ``folder`` was trained for."""
    path = folder / _REQUEST
    return json.loads(path.read_text()) if path.exists() else None


def _plain(content: Any) -> Any:
    """As JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(content))
