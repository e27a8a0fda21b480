"""A label for each token of a text: read from both sides, or as the tokens come."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import TAG
from bundle.spans import LegalPaths, is_bio, is_legal, spans_of
from bundle.tokenizer import Tokenizer, endings
from bundle.vocabulary import Vocabulary
from training.batching import similar_lengths
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.held_out import Confusion, FigureName, HeldOut
from training.measurements import Measurement, f1, ratio
from training.models.options import HIDDEN_AND_OUTPUT
from training.models.tagger import NO_LABEL, Tagger, TaggerConfig
from training.readers import CONLL, BadRows, DataInvalid, Table
from training.readers.conll import TOKENS
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import DataSettings, Flag, Prepared, Task, option
from training.tasks.texts import length_facts, limit_for
from training.word_dropout import WordDropout

EVALUATION_BATCH = 256
MOST_TOKENS = 512
NOT_SCORED = -100  # of a label: cross_entropy leaves it out
NO_TAG = -1  # a label that no training sentence has; no prediction is ever right
RARE = 10  # a word as rare as that says what the endings of unknown words mean

# tokens (batch, time), lengths (batch,), labels (batch, time), NOT_SCORED after a row's end
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Sentence:
    """labels: of each token."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Encoded:
    """A sentence as a model reads it: ids of its tokens, numbers of their labels."""

    tokens: list[int]
    labels: list[int]


@dataclass(frozen=True)
class TagData(DataSettings):
    token_column: str = option("", "column of the tokens, a number (default: 1; of CoNLL-U, 2)")
    label_column: str = option("", "column of the labels, a number (default: -1; of CoNLL-U, 4)")


@dataclass(frozen=True)
class TagSettings:
    """The table ``[task]``, as recipes/tasks/tag.toml explains it."""

    batch: int
    online: bool
    vocabulary: int
    endings: int
    input_limit: int
    word_dropout: float
    label_smoothing: float
    label_dropout: float


@dataclass(frozen=True)
class TagTask:
    """Teacher forcing where the last label is fed back; validation runs free.

    label_dropout: share of the labels that are fed back which training hides.
    """

    training: Sequence[Any]
    validation: Sequence[Any]
    seed: int
    batch: int = 32
    drop_words: Callable[[Tensor], Tensor] = torch.clone
    label_smoothing: float = 0.0
    label_dropout: float = 0.0

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        return make_batches(self.training, choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.validation, random.Random(0))

    def loss(self, model: Tagger, batch: Batch, carry: None) -> tuple[Tensor, None]:
        tokens, lengths, labels = batch
        fed_back = self._fed_back(labels) if model.config.recurrent.reads_output else None
        logits = model(self.drop_words(tokens), lengths, fed_back).flatten(0, 1)
        return cross_entropy(logits, labels.flatten(), label_smoothing=self.label_smoothing), None

    def _fed_back(self, labels: Tensor) -> Tensor:
        """The true label before each token, some of them hidden: the model's own may be wrong."""
        hidden = torch.rand(labels.shape, device=labels.device) < self.label_dropout
        return previous_labels(labels).masked_fill(hidden, NO_LABEL)

    def validate(self, model: Tagger) -> float:
        losses = [
            cross_entropy(
                model.tag(tokens, lengths).flatten(0, 1), labels.flatten(), reduction="sum"
            ).item()
            for tokens, lengths, labels in self._validation_batches
        ]
        return sum(losses) / sum(len(sentence.tokens) for sentence in self.validation)


def previous_labels(labels: Tensor) -> Tensor:
    """labels (batch, time) → 1 + the label before each token, NO_LABEL at the start"""
    before = torch.full_like(labels, NO_LABEL)
    before[:, 1:] = (labels[:, :-1] + 1).clamp(min=NO_LABEL)
    return before


def make_batches(
    sentences: Sequence[Any], choose: random.Random, size: int = EVALUATION_BATCH
) -> list[Batch]:
    """sentences: with ``tokens`` and ``labels``, an id and a number a token."""
    grouped = similar_lengths(sentences, lambda s: len(s.tokens), size, choose)
    return [stack(batch) for batch in grouped]


def stack(sentences: Sequence[Any]) -> Batch:
    tokens = [torch.tensor(sentence.tokens) for sentence in sentences]
    labels = [torch.tensor(sentence.labels) for sentence in sentences]
    return (
        pad_sequence(tokens, batch_first=True),
        torch.tensor([len(row) for row in tokens]),
        pad_sequence(labels, batch_first=True, padding_value=NOT_SCORED),
    )


def make_tokenizer(counts: Counter[str], words: int, most_endings: int) -> Tokenizer:
    """Reads the ``words`` most frequent of ``counts``, and the others by their endings.

    A word that occurs once is left out: such words train what stands for unknown ones.
    """
    order = sorted(counts, key=lambda word: (-counts[word], word))
    kept = [word for word in order if counts[word] > 1][:words]
    if not most_endings:
        return Tokenizer("words", Vocabulary(tuple(kept)))
    rare = (word for word in order if counts[word] <= RARE)
    found = Vocabulary.count(ending for word in rare for ending in endings(word))
    endings_kept = [symbol for symbol in found.symbols if symbol not in set(kept)]
    return Tokenizer("endings", Vocabulary((*kept, *endings_kept[:most_endings])))


class Tag(Task[Sentence]):
    name = TAG
    help = "a label for each token: CoNLL, with a token a line"
    data = TagData
    formats = (CONLL,)
    flags = {  # noqa: RUF012
        "online": Flag(
            "task.online", "each token labelled before the next one is read (StreamTag)", True
        )
    }

    def examples(
        self, table: Table, settings: TagData, bad_rows: BadRows
    ) -> tuple[list[Sentence], list[tuple[str, str]]]:
        is_universal = table.rows[0].file.endswith(".conllu")
        token = settings.token_column or ("2" if is_universal else "1")
        label = settings.label_column or ("4" if is_universal else "-1")
        places = [
            int(table.column(chosen, settings.files, flag)) - 1
            for chosen, flag in ((token, "--token-column"), (label, "--label-column"))
        ]
        if places[0] == places[1]:
            raise DataInvalid(
                f"{settings.files}: column {places[0] + 1} cannot be tokens and labels at once; "
                "choose another --label-column"
            )
        found = []
        for row in table.rows:
            fields = row.values[TOKENS]
            found.append(
                Sentence(
                    tuple(token[places[0]] for token in fields),
                    tuple(token[places[1]] for token in fields),
                )
            )
        facts = [("columns", f"tokens {places[0] + 1}, labels {places[1] + 1}")]
        return self._repaired(found, facts), facts

    def _repaired(self, sentences: list[Sentence], facts: list[tuple[str, str]]) -> list[Sentence]:
        """Spans that begin with ``I-``, as in IOB1, begin with ``B-`` as in BIO."""
        labels = {label for sentence in sentences for label in sentence.labels}
        insides = {f"B-{label[2:]}" for label in labels if label.startswith("I-")}
        if not is_bio(tuple(labels | insides)):
            return sentences
        repaired, count = [], 0
        for sentence in sentences:
            own = list(sentence.labels)
            for place, label in enumerate(own):
                if not is_legal(own[place - 1] if place else "", label):
                    own[place] = f"B-{label[2:]}"
                    count += 1
            repaired.append(Sentence(sentence.tokens, tuple(own)))
        spans = "spans in BIO"
        if count:
            spans += f"; {count:,} that began with I- begin with B- now"
        facts.append(("labels", spans))
        return repaired

    def key(self, example: Sentence) -> str:
        return " ".join(example.tokens)

    def prepare(self, recipe: Recipe, splits: Splits[Sentence], seed: int) -> Prepared:
        counts = Counter(token for sentence in splits.train for token in sentence.tokens)
        tokens = counts.total()
        lengths = [len(sentence.tokens) for sentence in splits.every]
        labels = _labels_of(splits)
        hidden = min(192, hidden_size(tokens))
        recipe = recipe.chosen(
            {
                "task.vocabulary": 20_000,
                "task.endings": min(3_000, max(50, len(counts) // 4)),
                "task.input_limit": limit_for(lengths, MOST_TOKENS),
                "task.batch": min(32, max(4, len(splits.train) // 60)),
                "model.recurrent.hidden_size": hidden,
                "model.embedding_size": 64,
            }
        )
        settings = recipe.task_settings(TagSettings)
        if settings.online:
            recipe = recipe.with_value("model.recurrent.bidirectional", False)
            recipe = recipe.with_value("model.recurrent.recurrence", HIDDEN_AND_OUTPUT)
            recipe = recipe.with_value("model.label_embedding_size", 32)
            recipe = recipe.with_value("model.legal_spans", is_bio(labels))
        recipe = recipe.chosen({"fit.epochs": epochs_of(len(splits.train) // settings.batch)})
        tokenizer = make_tokenizer(counts, settings.vocabulary, settings.endings)
        numbers = {label: number for number, label in enumerate(labels)}
        training = TagTask(
            encode(tokenizer, numbers, splits.train, settings.input_limit),
            encode(tokenizer, numbers, splits.validation, settings.input_limit),
            seed, settings.batch, WordDropout(tokenizer, counts, settings.word_dropout),
            settings.label_smoothing, settings.label_dropout,
        )  # fmt: skip
        config = recipe.config(
            TaggerConfig, vocabulary_size=len(tokenizer.vocabulary), labels=len(labels)
        )

        def build(config: TaggerConfig) -> Tagger:
            model = Tagger(config)
            if config.legal_spans:
                model.forbid(labels)
            return model

        few = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
        facts = [
            ("labels", f"{len(labels)}: {few}"),
            ("tokens", f"{len(tokenizer.vocabulary):,} ids, {tokens:,} tokens train; what the "
             "vocabulary lacks is read by its last letters"),
            ("lengths", length_facts(lengths, settings.input_limit)),
        ]  # fmt: skip
        how = "as it comes, knowing what came before" if settings.online else "in its sentence"
        return Prepared(
            recipe, config, build, training, {"input": tokenizer},
            {"input_tokens": settings.input_limit},
            f"Labels each token {how}, as one of {len(labels)}: {few}.", facts, labels,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Sentence], trained: TrainedModel
    ) -> HeldOut[list[str], Sequence[str]]:
        limit = trained.limits["input_tokens"]
        kept = [s for s in examples if len(s.tokens) <= limit]
        if not kept:
            raise DataInvalid(
                f"every held-out sentence has more than {limit} tokens; raise task.input_limit"
            )
        known = {*trained.tokenizers["input"].vocabulary.symbols}
        figures = [FigureName("accuracy", "%")]
        lacking = [[token not in known for token in sentence.tokens] for sentence in kept]
        has_unknown = any(map(any, lacking))
        if has_unknown:
            figures.append(FigureName("accuracy on unknown tokens", "%"))
        marks_spans = is_bio(trained.labels)
        if marks_spans:
            figures.append(FigureName("span F1", "%"))

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            right = [
                [a == b for a, b in zip(said, sentence.labels, strict=True)]
                for said, sentence in zip(answers, kept, strict=True)
            ]
            count = sum(map(len, right))
            measured = [
                ratio(list(map(sum, right)), list(map(len, right)), count, "sentences", 100)
            ]
            if has_unknown:
                over = [
                    sum(r and u for r, u in zip(*rows, strict=True))
                    for rows in zip(right, lacking, strict=True)
                ]
                under = list(map(sum, lacking))
                measured.append(ratio(over, under, sum(under), "sentences", 100))
            if marks_spans:
                measured.append(_span_f1([s.labels for s in kept], answers))
            return measured

        def confusion(answers: Sequence[Sequence[str]]) -> Confusion:
            found = Confusion()
            for said, sentence in zip(answers, kept, strict=True):
                found.update(zip(sentence.labels, said, strict=True))
            return found

        return HeldOut([list(s.tokens) for s in kept], measure, confusion, figures)

    @torch.no_grad()
    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[Sequence[str]],
        beam: int | None = None,
    ) -> list[list[str]]:
        tokenizer, labels = trained.tokenizers["input"], trained.labels
        paths = LegalPaths(labels) if is_bio(labels) else None
        rows = [
            Encoded(tokenizer.encode_words(tokens).ids, [number] * len(tokens))
            for number, tokens in enumerate(questions)
        ]
        found: list[list[str]] = [[] for _ in questions]
        for tokens, lengths, numbers in make_batches(rows, random.Random(0)):
            probabilities = torch.softmax(model.tag(tokens, lengths), dim=2).numpy()
            for row, number, length in zip(
                probabilities, numbers[:, 0].tolist(), lengths.tolist(), strict=True
            ):
                own = row[:length]
                best = own.argmax(axis=1) if paths is None else paths.best(own)
                found[number] = [labels[label] for label in best.tolist()]
        return found

    def floors(
        self, splits: Splits[Sentence], trained: TrainedModel, questions: Sequence[Sequence[str]]
    ) -> dict[str, list[Sequence[str]]]:
        counts: dict[str, Counter[str]] = {}
        every: Counter[str] = Counter()
        for sentence in splits.train:
            for token, label in zip(sentence.tokens, sentence.labels, strict=True):
                counts.setdefault(token, Counter())[label] += 1
                every[label] += 1
        rare = Counter(label for found in counts.values() if found.total() == 1 for label in found)
        unknown = max(rare or every, key=lambda label: (rare or every)[label])
        best = {token: max(found, key=found.__getitem__) for token, found in counts.items()}
        return {
            "each token's most frequent label": [
                [best.get(token, unknown) for token in tokens] for tokens in questions
            ]
        }

    def example_from_json(self, content: Any) -> Sentence:
        return Sentence(tuple(content["tokens"]), tuple(content["labels"]))

    def shown(self, question: Sequence[str], answer: Sequence[str]) -> tuple[str, str]:
        return " ".join(question), " ".join(answer)


def encode(
    tokenizer: Tokenizer, numbers: Mapping[str, int], sentences: Sequence[Sentence], limit: int
) -> list[Encoded]:
    """Each token of a file is one token of the model; what is beyond the limit is cut."""
    return [
        Encoded(
            tokenizer.encode_words(sentence.tokens[:limit]).ids,
            [numbers.get(label, NO_TAG) for label in sentence.labels[:limit]],
        )
        for sentence in sentences
    ]


def _labels_of(splits: Splits[Sentence]) -> tuple[str, ...]:
    """By falling frequency. Raises DataInvalid for one alone."""
    counts = Counter(label for sentence in splits.every for label in sentence.labels)
    labels = tuple(sorted(counts, key=lambda label: (-counts[label], label)))
    if len(labels) < 2:
        raise DataInvalid(f"every token has the label {labels[0]!r}; choose another --label-column")
    if len(labels) > 1_000:
        raise DataInvalid(
            f"{len(labels):,} different labels, such as {labels[-1]!r}: is another column meant? "
            "choose --label-column"
        )
    return labels


def _span_f1(truth: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> Measurement:
    """Of whole spans: a span is right where its kind, its first and its last token are."""
    rows = []
    for true, own in zip(truth, said, strict=True):
        wanted, found = set(spans_of(true)), set(spans_of(own))
        rows.append((len(wanted & found), len(wanted), len(found)))
    return f1(np.array(rows), "sentences")
