"""Names to nations: a bidirectional LSTM over the letters of names from Wikipedia.

    python -m training.nationality [--quick] [--resume] [--seed N]

Split: by a hash of the name, a tenth is held out, a tenth validates. An epoch reads at most
CAP names of a nation, others each time: every fourth name is American, and a model that reads
them all says so too often. The held-out names are as they come.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, count_symbols
from training.batching import similar_lengths
from training.command import Run, run_script
from training.data.names import Nations, load_names, sample_nations, split_by_name
from training.data.packages import NAME2NAT
from training.loop import FitSettings
from training.models import config_to_json
from training.models.classifier import Classifier, ClassifierConfig
from training.models.options import RecurrentOptions
from training.trained import Figure, TrainedModel

BATCH = 256
CAP = 8_000
VALIDATION_CAP = 500
INPUT_LIMIT = 128
VOCABULARY_CAP = 160  # letters, marks and digits; rarer ones train the catch-all

Batch = tuple[Tensor, Tensor, Tensor]  # tokens (batch, time), lengths, labels (batch,)
Labelled = tuple[list[int], int]  # token ids of a name, the number of its nation

# tokens (batch, time), lengths (batch,) → logits (batch, labels)
Reader = Callable[[Tensor, Tensor], Tensor]


def encode(tokenizer: Tokenizer, labels: Sequence[str], names: Mapping[str, str]) -> list[Labelled]:
    numbers = {nation: number for number, nation in enumerate(labels)}
    rows = ((tokenizer.encode(name).ids, numbers[nation]) for name, nation in names.items())
    return [(ids[:INPUT_LIMIT], label) for ids, label in rows]


def make_batches(rows: Sequence[Labelled], choose: random.Random) -> list[Batch]:
    return [_stack(batch) for batch in similar_lengths(rows, lambda r: len(r[0]), BATCH, choose)]


def _stack(rows: Sequence[Labelled]) -> Batch:
    tokens = [torch.tensor(ids) for ids, _ in rows]
    lengths = torch.tensor([len(row) for row in tokens])
    return pad_sequence(tokens, batch_first=True), lengths, torch.tensor([n for _, n in rows])


@dataclass(frozen=True)
class NationalityTask:
    """Each epoch: another sample of the frequent nations' names, all names of the others."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    training: Nations
    validation: Nations
    cap: int
    seed: int

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        sampled = sample_nations(self.training, self.cap, choose)
        return make_batches(encode(self.tokenizer, self.labels, sampled), choose)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        sampled = sample_nations(self.validation, VALIDATION_CAP, random.Random(0))
        rows = encode(self.tokenizer, self.labels, sampled)
        return make_batches(rows, random.Random(0))

    def loss(self, model: Classifier, batch: Batch, carry: None) -> tuple[Tensor, None]:
        tokens, lengths, labels = batch
        return cross_entropy(model(tokens, lengths), labels), None

    def validate(self, model: Classifier) -> float:
        losses = [
            cross_entropy(model(tokens, lengths), labels, reduction="sum").item()
            for tokens, lengths, labels in self._validation_batches
        ]
        return sum(losses) / sum(len(labels) for _, _, labels in self._validation_batches)


@torch.no_grad()
def precisions(read: Reader, rows: Sequence[Labelled]) -> tuple[float, float]:
    """Share of names whose nation is the likeliest, and among the five likeliest, in percent."""
    first, fifth = 0, 0
    for tokens, lengths, labels in make_batches(rows, random.Random(0)):
        logits = read(tokens, lengths)
        found = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
        first, fifth = first + int(found[:, 0].sum()), fifth + int(found.sum())
    return 100 * first / len(rows), 100 * fifth / len(rows)


def load_task(run: Run) -> tuple[NationalityTask, Nations]:
    """What is trained on and validated with, and the held-out names."""
    names = load_names(run.data)
    labels = tuple(sorted(set(names.values())))
    splits = split_by_name(names)
    if run.quick:
        splits = {name: dict(list(part.items())[:40_000]) for name, part in splits.items()}
    cap = VOCABULARY_CAP
    tokenizer = count_symbols("characters", splits["train"], lowercase=True, cap=cap)
    task = NationalityTask(tokenizer, labels, splits["train"], splits["validation"], CAP, run.seed)
    return task, splits["held-out"]


def figures(run: Run, read: Reader, task: NationalityTask, held_out: Nations) -> tuple[Figure, ...]:
    rows = encode(task.tokenizer, task.labels, held_out)
    split = "a tenth of the names, by a hash" if not run.quick else "40,000 held-out names"
    return tuple(
        Figure(f"P@{top}", value, "%", split, len(rows), run.command)
        for top, value in zip((1, 5), precisions(read, rows), strict=True)
    )


def train(run: Run) -> None:
    task, held_out = load_task(run)
    size, epochs = (48, 2) if run.quick else (128, 4)
    config = ClassifierConfig(
        vocabulary_size=len(task.tokenizer.vocabulary),
        labels=len(task.labels),
        embedding_size=size // 2,
        recurrent=RecurrentOptions("lstm", size, 1, bidirectional=True),
        dropout=0.2,
    )
    settings = FitSettings(run.seed, epochs, learning_rate=0.003)
    model, history = run.fit(Classifier, config, task, settings)
    trained = TrainedModel(
        name=run.model,
        description="Guesses a person's nation, one of 176, from the letters of the name.",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers={"input": task.tokenizer},
        labels=task.labels,
        limits={"input_tokens": INPUT_LIMIT},
        figures=figures(run, model, task, held_out),
        data=(NAME2NAT.describe(),),
        training=run.facts(model, history, settings),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("nationality", train))
