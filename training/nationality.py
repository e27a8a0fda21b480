"""Names to nations: a bidirectional LSTM over the letters of names from Wikipedia.

    python -m training.nationality [--quick] [--resume] [--seed N] [--recipe FILE]

Split: by a hash of the name, a tenth is held out, a tenth validates. At first an epoch reads at
most ``cap`` names of a nation, others each time: every fourth name is American, and there is more
to learn from the others. What the cap left out is then made good in the labels' biases, and the
last stage reads all names as they come (Kang et al. 2020, arXiv:1910.09217, likewise learn
features and frequencies one after the other).
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, count_symbols
from training.batching import similar_lengths
from training.checkpoint import Figure, TrainedModel
from training.cli import Run, run_script
from training.data.names import Nations, load_names, sample_nations, split_by_name
from training.data.packages import NAME2NAT
from training.held_out import Confusion, EvaluationContext, HeldOut
from training.loop import FitSettings, History
from training.measurements import Measurement, share
from training.models import config_to_json
from training.models.classifier import Classifier, ClassifierConfig

EVALUATION_BATCH = 256
VALIDATION_CAP = 500
VALIDATION_NAMES = 20_000
CAPPED = "capped"  # the stage in which frequent nations are held back
QUICK_NAMES = 40_000
INPUT_LIMIT = 128

Batch = tuple[Tensor, Tensor, Tensor]  # tokens (batch, time), lengths, labels (batch,)
Labelled = tuple[list[int], int]  # token ids of a name, the number of its nation

# tokens (batch, time), lengths (batch,) → logits (batch, labels)
Reader = Callable[[Tensor, Tensor], Tensor]


def encode(tokenizer: Tokenizer, labels: Sequence[str], names: Mapping[str, str]) -> list[Labelled]:
    numbers = {nation: number for number, nation in enumerate(labels)}
    rows = ((tokenizer.encode(name).ids, numbers[nation]) for name, nation in names.items())
    return [(ids[:INPUT_LIMIT], label) for ids, label in rows]


def make_batches(
    rows: Sequence[Labelled], choose: random.Random, size: int = EVALUATION_BATCH
) -> list[Batch]:
    return [_stack(batch) for batch in similar_lengths(rows, lambda r: len(r[0]), size, choose)]


def _stack(rows: Sequence[Labelled]) -> Batch:
    tokens = [torch.tensor(ids) for ids, _ in rows]
    lengths = torch.tensor([len(row) for row in tokens])
    return pad_sequence(tokens, batch_first=True), lengths, torch.tensor([n for _, n in rows])


@dataclass(frozen=True)
class NationalitySettings:
    """batch: names. symbols: ids of letters, marks and digits at most; rarer ones train the
    catch-all. cap: names of a nation that an epoch of the first stage reads.
    capped_epochs, capped_rate: of that stage.
    """

    batch: int
    symbols: int
    cap: int
    capped_epochs: int
    capped_rate: float


@dataclass(frozen=True)
class NationalityTask:
    """Each epoch: another sample of the frequent nations' names, all names of the others.

    cap: names of a nation at most; None for all names, and a validation on names as they come.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    training: Nations
    validation: Nations
    cap: int | None
    seed: int
    batch: int = 256

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        sampled = self.training
        if self.cap is not None:
            sampled = sample_nations(self.training, self.cap, choose)
        return make_batches(encode(self.tokenizer, self.labels, sampled), choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        choose = random.Random(0)
        if self.cap is None:
            count = min(VALIDATION_NAMES, len(self.validation))
            sampled = dict(choose.sample(list(self.validation.items()), count))
        else:
            sampled = sample_nations(self.validation, VALIDATION_CAP, choose)
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


def frequencies_left_out(names: Nations, labels: Sequence[str], cap: int) -> Tensor:
    """log of how many times as frequent each label is as training with ``cap`` saw it (labels,).

    Added to the logits, it turns p(label | name) under the sampled frequencies into that under
    the true ones, by Bayes' rule (Saerens, Latinne and Decaestecker 2002).
    """
    counts = Counter(names.values())
    return torch.tensor([max(1.0, counts[label] / cap) for label in labels]).log()


@torch.no_grad()
def restore_frequencies(model: Classifier, left_out: Tensor) -> None:
    model.output.bias.add_(left_out)


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
        splits = {name: dict(list(part.items())[:QUICK_NAMES]) for name, part in splits.items()}
    options = run.recipe.task_settings(NationalitySettings)
    tokenizer = count_symbols("characters", splits["train"], lowercase=True, cap=options.symbols)
    task = NationalityTask(
        tokenizer, labels, splits["train"], splits["validation"], options.cap, run.seed,
        options.batch,
    )  # fmt: skip
    return task, splits["held-out"]


def figures(run: Run, read: Reader, task: NationalityTask, held_out: Nations) -> tuple[Figure, ...]:
    rows = encode(task.tokenizer, task.labels, held_out)
    split = (
        "a tenth of the names, by a hash" if not run.quick else f"{QUICK_NAMES:,} held-out names"
    )
    return tuple(
        Figure(f"P@{top}", value, "%", split, len(rows), run.command)
        for top, value in zip((1, 5), precisions(read, rows), strict=True)
    )


def held_out(context: EvaluationContext) -> HeldOut[str, Sequence[str]]:
    names = split_by_name(load_names(context.data))["held-out"]

    def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
        places = [
            labels.index(nation) if nation in labels else len(labels)
            for labels, nation in zip(answers, names.values(), strict=True)
        ]
        return [share([place < top for place in places]) for top in (1, 5)]

    def confusion(answers: Sequence[Sequence[str]]) -> Confusion:
        return Confusion(zip(names.values(), (best for best, *_ in answers), strict=True))

    return HeldOut([name[:INPUT_LIMIT] for name in names], measure, confusion)


def fit(
    run: Run, task: NationalityTask, config: ClassifierConfig, settings: FitSettings
) -> tuple[Classifier, History]:
    """Both stages; ``settings`` are the last one's, and the first has its average."""
    options = run.recipe.task_settings(NationalitySettings)
    first = replace(settings, epochs=options.capped_epochs, learning_rate=options.capped_rate)
    capped, history = run.fit(Classifier, config, task, first, stage=CAPPED)
    restore_frequencies(capped, frequencies_left_out(task.training, task.labels, options.cap))

    def build(config: ClassifierConfig) -> Classifier:
        return capped

    return run.fit(build, config, replace(task, cap=None), settings, after=history)


def train(run: Run) -> None:
    task, held_out = load_task(run)
    config = run.recipe.config(
        ClassifierConfig,
        vocabulary_size=len(task.tokenizer.vocabulary),
        labels=len(task.labels),
    )
    settings = run.recipe.fit_settings(run.seed)
    model, history = fit(run, task, config, settings)
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
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("nationality", train))
