"""Models by the name of their architecture, to and from the JSON a bundle keeps of them.

A configuration names its ``architecture`` and the ``task`` it is for, as a manifest names tasks:
export finds its graphs by the task, so another architecture of a known task is a module here and
a line below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from training.models.baselines import Baseline, BaselineConfig, build_baseline
from training.models.classifier import Classifier, ClassifierConfig
from training.models.fill import Fill, FillConfig
from training.models.forecaster import Forecaster, ForecasterConfig
from training.models.frame_classifier import FrameClassifier, FrameClassifierConfig
from training.models.generator import Generator, GeneratorConfig
from training.models.options import DesignInvalid, RecurrentOptions
from training.models.seq2seq import Seq2Seq, Seq2SeqConfig
from training.models.tagger import Tagger, TaggerConfig
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig

Config = (
    ClassifierConfig
    | FrameClassifierConfig
    | BaselineConfig
    | TaggerConfig
    | FillConfig
    | GeneratorConfig
    | Seq2SeqConfig
    | VectorToSequenceConfig
    | ForecasterConfig
)
Model = (
    Classifier
    | FrameClassifier
    | Baseline
    | Tagger
    | Fill
    | Generator
    | Seq2Seq
    | VectorToSequence
    | Forecaster
)

_ARCHITECTURES: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
    config.architecture: (config, model)
    for config, model in (
        (ClassifierConfig, Classifier),
        (FrameClassifierConfig, FrameClassifier),
        (BaselineConfig, build_baseline),
        (TaggerConfig, Tagger),
        (FillConfig, Fill),
        (GeneratorConfig, Generator),
        (Seq2SeqConfig, Seq2Seq),
        (VectorToSequenceConfig, VectorToSequence),
        (ForecasterConfig, Forecaster),
    )
}


def build(config: Config) -> Model:
    """The untrained model that ``config`` describes."""
    _, model = _ARCHITECTURES[config.architecture]
    return model(config)


def config_to_json(config: Config) -> dict[str, Any]:
    return {"architecture": config.architecture, **asdict(config)}


def config_from_json(content: Mapping[str, Any]) -> Config:
    """Raises DesignInvalid for an architecture or option that does not exist."""
    options = dict(content)
    architecture = options.pop("architecture", None)
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise DesignInvalid(f"architecture {architecture!r} is not one of {known}")
    config, _ = _ARCHITECTURES[architecture]
    try:
        if "recurrent" in options:
            options["recurrent"] = RecurrentOptions(**options["recurrent"])
        return config(**options)
    except TypeError as error:
        raise DesignInvalid(f"configuration of {architecture!r} does not fit: {error}") from error


__all__ = ["Config", "DesignInvalid", "Model", "build", "config_from_json", "config_to_json"]
