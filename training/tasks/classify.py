"""Labels of whole texts."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import CLASSIFY
from bundle.tokenizer import Tokenizer
from training.batching import similar_lengths
from training.calibration import MOST_LOGITS, ranked, with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.floors.naive_bayes import NaiveBayes, character_features, word_features
from training.held_out import BEST, Confusion, FigureName, HeldOut, Ranked
from training.measurements import Measurement, macro_f1, share
from training.models.classifier import Classifier, ClassifierConfig
from training.readers import CSV, JSONL, PARQUET, TSV, BadRows, DataInvalid, Table
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import CalibratedTask, DataSettings, Prepared, option
from training.tasks.texts import (
    CHARACTERS,
    MOST_WORDS,
    choose_reader,
    length_facts,
    limit_for,
    make_tokenizer,
)

EVALUATION_BATCH = 256
MOST_TOKENS = 512
_UNEVEN = 3.0  # times as frequent as the rarest label is the most frequent one

# tokens (batch, time) or frames (batch, time, channels), lengths, labels (batch,)
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Labelled:
    text: str
    label: str


@dataclass(frozen=True)
class ClassifyData(DataSettings):
    text_column: str = option("text", "column of the texts: a name, or a number from 1")
    label_column: str = option("label", "column of the labels: a name, or a number from 1")


@dataclass(frozen=True)
class ClassifySettings:
    """The table ``[task]``, as recipes/tasks/classify.toml explains it."""

    batch: int
    tokens: str
    lowercase: bool
    vocabulary: int
    input_limit: int
    label_smoothing: float
    balance: float
    calibrated: bool = True


@dataclass(frozen=True)
class ClassifyTask:
    """rows, validation: token ids of a text, or the frames (time, channels) of a sequence, and the
    number of its label.

    weights: (labels,) what a row counts by its label; validation counts all alike.
    """

    rows: Sequence[tuple[Any, int]]
    validation: Sequence[tuple[Any, int]]
    seed: int
    batch: int
    label_smoothing: float = 0.0
    weights: Tensor | None = None

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        return make_batches(self.rows, choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.validation, random.Random(0), EVALUATION_BATCH)

    def loss(self, model: nn.Module, batch: Batch, carry: None) -> tuple[Tensor, None]:
        tokens, lengths, labels = batch
        logits = model(tokens, lengths)
        weights = None if self.weights is None else self.weights.to(logits)
        return cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing), None

    def validate(self, model: nn.Module) -> float:
        losses = [
            cross_entropy(model(tokens, lengths), labels, reduction="sum").item()
            for tokens, lengths, labels in self._validation_batches
        ]
        return sum(losses) / len(self.validation)


def make_batches(rows: Sequence[tuple[Any, int]], choose: random.Random, size: int) -> list[Batch]:
    grouped = similar_lengths(rows, lambda row: len(row[0]), size, choose)
    return [_stack(batch) for batch in grouped]


def _stack(rows: Sequence[tuple[Any, int]]) -> Batch:
    tokens = [torch.as_tensor(row) for row, _ in rows]
    lengths = torch.tensor([len(row) for row in tokens])
    return pad_sequence(tokens, batch_first=True), lengths, torch.tensor([n for _, n in rows])


class Classify(CalibratedTask[Labelled]):
    name = CLASSIFY
    help = "a label for each text: CSV, TSV, JSONL or Parquet with texts and labels"
    data = ClassifyData
    formats = (CSV, TSV, JSONL, PARQUET)

    def examples(
        self, table: Table, settings: ClassifyData, bad_rows: BadRows
    ) -> tuple[list[Labelled], list[tuple[str, str]]]:
        text = table.column(settings.text_column, settings.files, "--text-column")
        label = table.column(settings.label_column, settings.files, "--label-column")
        if text == label:
            raise DataInvalid(
                f"column {text!r} cannot be text and label at once; choose another --label-column"
            )
        found = []
        for row in table.rows:
            try:
                found.append(Labelled(row.text(text), row.label(label)))
            except DataInvalid as problem:
                bad_rows.report(problem)
        return found, [("columns", f"texts {text!r}, labels {label!r}")]

    def key(self, example: Labelled) -> str:
        return example.text

    def prepare(self, recipe: Recipe, splits: Splits[Labelled], seed: int) -> Prepared:
        labels, facts = labels_of(splits)
        train = [example.text for example in splits.train]
        kind, why = choose_reader(train, [example.text for example in splits.validation])
        recipe = recipe.chosen({"task.tokens": kind, "task.vocabulary": MOST_WORDS})
        kind, lowercase = recipe.task["tokens"], bool(recipe.task["lowercase"])
        tokenizer = make_tokenizer(kind, train, recipe.task["vocabulary"], lowercase)
        lengths = [len(tokenizer.split(example.text)) for example in splits.every]
        counts = Counter(example.label for example in splits.train)
        uneven = max(counts.values()) / min(counts.values())
        batch = min(64, max(8, len(train) // 40))
        recipe = recipe.chosen(
            {
                "task.input_limit": limit_for(lengths, MOST_TOKENS),
                "task.batch": batch,
                "task.balance": 0.5 if uneven > _UNEVEN else 0.0,
                "model.recurrent.hidden_size": hidden_size(sum(lengths)),
                "model.embedding_size": min(64, hidden_size(sum(lengths))),
            }
        )
        settings = recipe.task_settings(ClassifySettings)
        recipe = recipe.chosen({"fit.epochs": epochs_of(len(train) // settings.batch)})
        numbers = {label: number for number, label in enumerate(labels)}
        training = ClassifyTask(
            encode(tokenizer, numbers, splits.train, settings.input_limit),
            encode(tokenizer, numbers, splits.validation, settings.input_limit),
            seed, settings.batch, settings.label_smoothing,
            label_weights(counts, labels, settings.balance),
        )  # fmt: skip
        config = recipe.config(
            ClassifierConfig, vocabulary_size=len(tokenizer.vocabulary), labels=len(labels)
        )
        facts += [
            ("tokens", f"{kind}, {len(tokenizer.vocabulary):,} ids: {why}"),
            ("lengths", length_facts(lengths, settings.input_limit)),
        ]
        if settings.balance:
            facts.append(
                (
                    "balance",
                    f"a row counts by its label's frequency ** -{settings.balance:g}: the most "
                    f"frequent label is {uneven:.1f} times as frequent as the rarest",
                )
            )
        return Prepared(
            recipe, config, Classifier, training, {"input": tokenizer},
            {"input_tokens": settings.input_limit},
            f"Labels a text as one of {len(labels)}: {_few(labels)}.", facts, labels,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Labelled], trained: TrainedModel
    ) -> HeldOut[str, Sequence[str]]:
        truth = [example.label for example in examples]
        figures = [FigureName("accuracy", "%"), FigureName("macro F1", "%")]
        if len(trained.labels) > 2 * BEST:
            figures.append(FigureName(f"right among {BEST}", "%"))

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            first = [best[0] for best in answers]
            measured = [share([a == b for a, b in zip(first, truth, strict=True)])]
            measured.append(macro_f1(truth, first))
            if len(figures) > len(measured):
                measured.append(share([b in a for a, b in zip(answers, truth, strict=True)]))
            return measured

        def confusion(answers: Sequence[Sequence[str]]) -> Confusion:
            return Confusion(zip(truth, (best[0] for best in answers), strict=True))

        texts = [_cut(example.text, trained) for example in examples]
        return with_calibration(HeldOut(texts, measure, confusion, figures), truth)

    def labelled(self, examples: Sequence[Any]) -> Sequence[Labelled]:
        """Examples of its splits as texts and labels."""
        return examples

    @torch.no_grad()
    def validation_logits(
        self, model: Any, examples: Sequence[Any], trained: TrainedModel
    ) -> tuple[Tensor, Tensor]:
        tokenizer, limit = trained.tokenizers["input"], trained.limits["input_tokens"]
        numbers = {label: number for number, label in enumerate(trained.labels)}
        first = self.labelled(examples[: MOST_LOGITS // len(numbers)])
        rows = encode(tokenizer, numbers, first, limit)
        found = [
            (model(tokens, lengths), answers)
            for tokens, lengths, answers in make_batches(rows, random.Random(0), EVALUATION_BATCH)
        ]
        logits, answers = zip(*found, strict=True)
        return torch.cat(logits), torch.cat(answers)

    @torch.no_grad()
    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[str],
        beam: int | None = None,
    ) -> list[Ranked]:
        tokenizer, limit = trained.tokenizers["input"], trained.limits["input_tokens"]
        rows = [
            (tokenizer.encode(text).ids[:limit], number) for number, text in enumerate(questions)
        ]
        found = [Ranked((), math.nan)] * len(questions)
        for tokens, lengths, numbers in make_batches(rows, random.Random(0), EVALUATION_BATCH):
            said = ranked(model(tokens, lengths), trained.labels)
            for number, best in zip(numbers.tolist(), said, strict=True):
                found[number] = best
        return found

    def floors(
        self, splits: Splits[Labelled], trained: TrainedModel, questions: Sequence[str]
    ) -> dict[str, list[Sequence[str]]]:
        tokenizer = trained.tokenizers["input"]
        is_spelled = tokenizer.kind == CHARACTERS
        features = character_features if is_spelled else word_features
        labels = [example.label for example in splits.train]
        read = [features(tokenizer.split(example.text)) for example in splits.train]
        bayes = NaiveBayes(read, labels)
        likeliest = [label for label, _ in Counter(labels).most_common(BEST)]
        of_what = "runs of characters" if is_spelled else "word pairs"
        return {
            "the most frequent label": [likeliest for _ in questions],
            f"naive Bayes over {of_what}": [
                bayes.ranked(features(tokenizer.split(text)))[:BEST] for text in questions
            ],
        }

    def example_from_json(self, content: Any) -> Labelled:
        return Labelled(**content)


def encode(
    tokenizer: Tokenizer, numbers: dict[str, int], examples: Sequence[Labelled], limit: int
) -> list[tuple[list[int], int]]:
    rows = ((tokenizer.encode(e.text).ids[:limit], numbers[e.label]) for e in examples)
    return [row for row in rows if row[0]]


def label_weights(counts: Counter[str], labels: Sequence[str], power: float) -> Tensor | None:
    """(labels,) of mean 1 over the training rows; None for a ``power`` of 0."""
    if not power:
        return None
    weights = torch.tensor([max(1, counts[label]) ** -power for label in labels])
    rows = torch.tensor([float(counts[label]) for label in labels])
    return weights * rows.sum() / (weights * rows).sum()


def labels_of(splits: Splits[Any]) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Every label of such rows as have one, by falling frequency, and what is told of them.

    Raises DataInvalid for one alone.
    """
    counts = Counter(example.label for example in splits.every)
    labels = tuple(sorted(counts, key=lambda label: (-counts[label], label)))
    if len(labels) < 2:
        raise DataInvalid(
            f"every row has the label {labels[0]!r}; give rows of two labels at least"
        )
    if len(labels) > len(splits.every) / 2:
        raise DataInvalid(
            f"{len(labels):,} labels for {len(splits.every):,} rows, such as {labels[-1]!r}: is "
            "another column meant? choose --label-column"
        )
    trained = Counter(example.label for example in splits.train)
    facts = [
        ("labels", f"{len(labels)}: {_few([f'{n} {counts[n]:,}' for n in labels])}"),
    ]
    unseen = [label for label in labels if not trained[label]]
    if unseen:
        facts.append(("labels", f"no training row has {_few(unseen)}"))
    return labels, facts


def _few(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _cut(text: str, trained: TrainedModel) -> str:
    """What of a text its tokens within the limit are made of: a service refuses longer ones."""
    tokenizer, limit = trained.tokenizers["input"], trained.limits["input_tokens"]
    words = tokenizer.words_of(text)
    if len(words) <= limit and len(text) <= tokenizer.longest_text(limit):
        return text
    between = "" if tokenizer.kind == CHARACTERS else " "
    return between.join(words[:limit])[: tokenizer.longest_text(limit)]
