"""What the fuzzer is let loose on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz.loading import STEPPER
from tests.step_models import write_step_bundle


@pytest.fixture
def fuzzed_models(tiny_models: Path, tmp_path: Path) -> Path:
    """A bundle of each task."""
    models = Path(shutil.copytree(tiny_models, tmp_path / "models"))
    write_step_bundle(models, STEPPER, gains=(1.0, 3.0))
    return models
