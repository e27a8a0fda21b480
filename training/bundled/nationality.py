"""Names to nations, from Wikipedia, or to OTHER.

Split: by a hash of the name, a tenth is held out, a tenth validates. At first an epoch reads at
most ``cap`` names of a nation, others each time: every fourth name is American, and there is more
to learn from the others. What the cap left out is then made good in the labels' biases, and the
last stage reads all names as they come (Kang et al. 2020, arXiv:1910.09217, likewise learn
features and frequencies one after the other).

A nation with few names that train cannot be learnt, and many nations have none at all. They are
OTHER: once all is trained, the rows of the output layer for nations with few names give way to one
(training/other_label.py). The data has hardly a Pole, Spaniard or Swede to learn more from.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bundle.tokenizer import Tokenizer, count_symbols
from training.bundled import PackageData
from training.calibration import with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.names import Nations, load_names, sample_nations, split_by_name
from training.data.packages import NAME2NAT
from training.held_out import FigureName, HeldOut
from training.loop import FitSettings, History
from training.measurements import Measurement, macro_f1, share
from training.models.classifier import Classifier, ClassifierConfig
from training.other_label import Read, fit_other, keep_labels
from training.run import Run
from training.splits import Splits, splits_of
from training.tasks.base import Prepared
from training.tasks.classify import (
    EVALUATION_BATCH,
    Batch,
    Classify,
    ClassifyTask,
    Labelled,
    encode,
    make_batches,
)

VALIDATION_CAP = 500
VALIDATION_NAMES = 20_000
CAPPED = "capped"  # the stage in which frequent nations are held back
INPUT_LIMIT = 128
OTHER = "Other"
MAY_COST = 0.2  # points of P@1, and of P@5, on validation, for answering OTHER
TOLD_FROM = 100_000  # names of other nations that OTHER is learnt beside


@dataclass(frozen=True)
class NationalitySettings:
    """batch: names. symbols: ids of letters, marks and digits at most; rarer ones train the
    catch-all. cap: names of a nation that an epoch of the first stage reads.
    capped_epochs, capped_rate: of that stage. least_names: of a nation that train, for it to be an
    answer.
    """

    batch: int
    symbols: int
    cap: int
    capped_epochs: int
    capped_rate: float
    least_names: int


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
        return make_batches(self._rows(sampled), choose, self.batch)

    def _rows(self, names: Mapping[str, str]) -> list[tuple[list[int], int]]:
        numbers = {nation: number for number, nation in enumerate(self.labels)}
        return encode(self.tokenizer, numbers, labelled(names), INPUT_LIMIT)

    @cached_property
    def _as_classified(self) -> ClassifyTask:
        """Of what validates, which is the same in every epoch."""
        choose = random.Random(0)
        if self.cap is None:
            count = min(VALIDATION_NAMES, len(self.validation))
            sampled = dict(choose.sample(list(self.validation.items()), count))
        else:
            sampled = sample_nations(self.validation, VALIDATION_CAP, choose)
        return ClassifyTask((), self._rows(sampled), self.seed, EVALUATION_BATCH)

    def loss(self, model: Classifier, batch: Batch, carry: None) -> tuple[Tensor, None]:
        return self._as_classified.loss(model, batch, carry)

    def validate(self, model: Classifier) -> float:
        return self._as_classified.validate(model)


def labelled(names: Mapping[str, str]) -> list[Labelled]:
    return [Labelled(name, nation) for name, nation in names.items()]


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


def answerable(examples: Sequence[Labelled], labels: Sequence[str]) -> list[Labelled]:
    """With OTHER where a model of ``labels`` has no other answer."""
    known = frozenset(labels)
    return [e if e.label in known or OTHER not in known else replace(e, label=OTHER)
            for e in examples]  # fmt: skip


def learn_other(
    model: Classifier, rare: Mapping[str, int], splits: Splits[Labelled], trained: TrainedModel
) -> TrainedModel:
    """Has ``model`` answer OTHER for the nations that are ``rare``, whose names that train are
    counted."""
    kept = [name for name in trained.labels if name not in rare]
    keep_labels(model, [trained.labels.index(name) for name in kept])
    trained = replace(trained, labels=(*kept, OTHER))
    others, known = list[Labelled](), list[Labelled]()
    for example in answerable(splits.train, trained.labels):
        (others if example.label == OTHER else known).append(example)
    beside = random.Random(0).sample(known, min(TOLD_FROM, len(known)))
    train, validation = (
        _read(model, examples, trained)
        for examples in ([*others, *beside], answerable(splits.validation, trained.labels))
    )
    chosen = fit_other(model, train, len(beside) / len(known), validation, MAY_COST)
    _print_other(model, validation)
    return trained.with_facts({**chosen, "answered_as_other": dict(rare)})


@torch.no_grad()
def _print_other(model: Classifier, validation: Read) -> None:
    said = model.output(validation.features).argmax(dim=1) == validation.others
    rare, found = int(validation.is_other.sum()), int((said & validation.is_other).sum())
    print(
        f"{OTHER}: answered for {found} of {rare} names that validate of nations with few names, "
        f"and for {int(said.sum()) - found:,} of {len(said) - rare:,} others"
    )


@torch.no_grad()
def _read(model: Classifier, examples: Sequence[Labelled], trained: TrainedModel) -> Read:
    numbers = {label: number for number, label in enumerate(trained.labels)}
    rows = encode(trained.tokenizers["input"], numbers, examples, INPUT_LIMIT)
    found = [
        (model.pooled(tokens, lengths), labels)
        for tokens, lengths, labels in make_batches(rows, random.Random(0), EVALUATION_BATCH)
    ]
    features, labels = zip(*found, strict=True)
    return Read(torch.cat(features), torch.cat(labels), numbers[OTHER])


class Nationality(Classify):
    packages = (NAME2NAT,)

    def read(self, recipe: Recipe) -> tuple[Splits[Labelled], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        splits = split_by_name(load_names(settings.path))
        name = "a tenth of the names, by a hash"
        if settings.most:
            splits = {
                part: dict(list(names.items())[: settings.most]) for part, names in splits.items()
            }
            name = f"{settings.most:,} held-out names"
        return splits_of({part: labelled(names) for part, names in splits.items()}, name), []

    def prepare(self, recipe: Recipe, splits: Splits[Labelled], seed: int) -> Prepared:
        settings = recipe.task_settings(NationalitySettings)
        labels = tuple(sorted({example.label for example in splits.every}))
        train, validation = (
            {example.text: example.label for example in part}
            for part in (splits.train, splits.validation)
        )
        tokenizer = count_symbols("characters", train, lowercase=True, cap=settings.symbols)
        task = NationalityTask(
            tokenizer, labels, train, validation, settings.cap, seed, settings.batch
        )
        config = recipe.config(
            ClassifierConfig, vocabulary_size=len(tokenizer.vocabulary), labels=len(labels)
        )

        def fit(run: Run, last: FitSettings) -> tuple[Classifier, History]:
            """Both stages; the first has the last one's average."""
            first = replace(last, epochs=settings.capped_epochs, learning_rate=settings.capped_rate)
            capped, history = run.fit(Classifier, config, task, first, stage=CAPPED)
            restore_frequencies(capped, frequencies_left_out(train, labels, settings.cap))
            whole = replace(task, cap=None)
            return run.fit(lambda config: capped, config, whole, last, after=history)

        return Prepared(
            recipe, config, Classifier, task, {"input": tokenizer},
            {"input_tokens": INPUT_LIMIT}, "", [], labels, fit=fit,
        )  # fmt: skip

    def adjust(
        self, model: Any, recipe: Recipe, splits: Splits[Labelled], trained: TrainedModel
    ) -> TrainedModel:
        """Learns OTHER, and then as every classifier."""
        least = recipe.task_settings(NationalitySettings).least_names
        counts = Counter(example.label for example in splits.train)
        rare = {name: counts[name] for name in trained.labels if counts[name] < least}
        if OTHER not in trained.labels and any(rare.values()):
            trained = learn_other(model, rare, splits, trained)
        validation = answerable(splits.validation, trained.labels)
        return super().adjust(model, recipe, replace(splits, validation=validation), trained)

    def held_out(
        self, examples: Sequence[Labelled], trained: TrainedModel
    ) -> HeldOut[str, Sequence[str]]:
        examples = answerable(examples, trained.labels)
        found = super().held_out(examples, trained)
        truth = [example.label for example in examples]

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            return [
                *(
                    share([own in said[:top] for own, said in zip(truth, answers, strict=True)])
                    for top in (1, 5)
                ),
                macro_f1(truth, [said[0] for said in answers]),
            ]

        figures = [FigureName(f"P@{top}", "%") for top in (1, 5)]
        figures.append(FigureName("macro F1", "%"))
        questions = [example.text[:INPUT_LIMIT] for example in examples]
        return with_calibration(HeldOut(questions, measure, found.confusion, figures), truth)

    def floors(
        self, splits: Splits[Labelled], trained: TrainedModel, questions: Sequence[str]
    ) -> dict[str, list[Sequence[str]]]:
        """Naive Bayes over a million names is left out: it takes longer than the training."""
        counts = Counter(example.label for example in splits.train)
        likeliest = [label for label, _ in counts.most_common(5)]
        return {"the most frequent nations": [likeliest for _ in questions]}


TASK = Nationality()
