"""A trained model as training leaves it and export takes it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bundle import schema_3
from bundle.frames import FrameSpec
from bundle.manifest import FigureSpec as Figure
from bundle.sampling import SamplingDefaults
from bundle.series import SeriesSpec
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.models import Model, build, config_from_json

MODEL_FILE = "model.pt"


@dataclass(frozen=True)
class TrainedModel:
    """Everything a bundle says of a model, and its weights.

    config: as training.models.config_to_json.
    tokenizers: by role, ``input`` and ``output``; the same object where a model reads what
        it writes.
    sampling: what a request that does not choose gets, None for what its task has.
    limits: the largest inputs and outputs the service accepts, by name.
    series: that a forecaster reads; frames: that a classifier of numbers reads; each None for any
        other model.
    length_penalty: of a beam search that does not choose one, None for 1.
    add_bos_token: as the manifest's; None where it says nothing.
    vector: names, with units, of the values of the vector that prefills the model.
    precisions: what it is exported in beside fp32, with the figures measured of each. Export
        alone adds to it.
    """

    name: str
    description: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    tokenizers: dict[str, Tokenizer]
    limits: dict[str, int]
    labels: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    data: tuple[dict[str, str], ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    precisions: dict[str, tuple[Figure, ...]] = field(default_factory=dict)
    sampling: SamplingDefaults | None = None
    series: SeriesSpec | None = None
    frames: FrameSpec | None = None
    length_penalty: float | None = None
    add_bos_token: bool | None = None

    @property
    def task(self) -> str:
        """The manifest's: ``classify``, ``generate`` and so on."""
        return config_from_json(self.config).task

    def build(self) -> Model:
        """The PyTorch model with these weights, in evaluation mode."""
        model = build(config_from_json(self.config))
        model.load_state_dict(self.weights)
        return model.eval()

    def with_facts(self, facts: Mapping[str, Any]) -> TrainedModel:
        """With more in ``training``."""
        return replace(self, training={**self.training, **facts})

    def save(self, folder: Path) -> Path:
        content = {
            **{key: getattr(self, key) for key in ("name", "description", "config", "limits")},
            "weights": self.weights,
            "tokenizers": {role: _tokenizer_to_json(t) for role, t in self.tokenizers.items()},
            "labels": list(self.labels),
            "vector": list(self.vector),
            "figures": [asdict(figure) for figure in self.figures],
            "data": list(self.data),
            "training": self.training,
            "precisions": {
                name: [asdict(figure) for figure in figures]
                for name, figures in self.precisions.items()
            },
            "sampling": self.sampling and dict(self.sampling),
            "series": self.series and asdict(self.series),
            "frames": self.frames and asdict(self.frames),
            "length_penalty": self.length_penalty,
            "add_bos_token": self.add_bos_token,
        }
        path = folder / MODEL_FILE
        partial = path.with_suffix(".partial")
        torch.save(content, partial)
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        content = torch.load(folder / MODEL_FILE, weights_only=True)
        content["tokenizers"] = {
            role: _tokenizer_from_json(part) for role, part in content["tokenizers"].items()
        }
        content["figures"] = _figures_from_json(content["figures"])
        content["training"] = schema_3.with_profile(content["training"])
        # Runs of earlier releases say nothing of precisions, nor of sampling.
        content["sampling"] = content.get("sampling")
        series = content.get("series")
        content["series"] = series and _series_from_json(series)
        frames = content.get("frames")
        content["frames"] = frames and _frames_from_json(frames)
        content["precisions"] = {
            name: _figures_from_json(figures)
            for name, figures in content.get("precisions", {}).items()
        }
        for name in ("labels", "vector", "data"):
            content[name] = tuple(content.get(name, ()))
        return cls(**content)


def _figures_from_json(content: list[dict[str, Any]]) -> tuple[Figure, ...]:
    return tuple(Figure(**schema_3.with_fields(figure)) for figure in content)


def _series_from_json(content: dict[str, Any]) -> SeriesSpec:
    return SeriesSpec(**{**content, "covariates": tuple(content["covariates"])})


def _frames_from_json(content: dict[str, Any]) -> FrameSpec:
    return FrameSpec(**{**content, "channels": tuple(content["channels"])})


def _tokenizer_to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    return {**tokenizer.to_json(), "vocabulary": tokenizer.vocabulary.to_json()}


def _tokenizer_from_json(content: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_json(content, Vocabulary.from_json(content["vocabulary"]))


def revision() -> str:
    """The commit this code is at, with ``+changes`` when files differ from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


__all__ = ["MODEL_FILE", "Figure", "TrainedModel", "revision"]
