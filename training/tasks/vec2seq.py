"""Texts made of numbers: a vector of fixed size and what is written for it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import BELOW_ZERO, VEC2SEQ
from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import PADDING_ID, Vocabulary
from training.batching import similar_lengths
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.floors.nearest import nearest_vectors
from training.held_out import FigureName, HeldOut
from training.measurements import Measurement, ratio, share
from training.metrics import overlap_f1
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig
from training.readers import CSV, JSONL, PARQUET, TSV, BadRows, DataInvalid, Row, Table, listed
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import DataSettings, Prepared, Task, option
from training.tasks.texts import (
    CHARACTERS,
    PIECES,
    SYMBOLS,
    choose_writer,
    length_facts,
    limit_for,
    make_tokenizer,
    pieces_for,
)

MOST_TOKENS = 256
MOST_NUMBER = 1e9
_WRITTEN_TOGETHER = 256

# vectors (batch, values), inputs and targets (batch, tokens): begin + text, text + end
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Described:
    """names: of the values."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    text: str


@dataclass(frozen=True)
class Vec2SeqData(DataSettings):
    text_column: str = option("text", "column of the texts: a name, or a number from 1")
    number_columns: str = option("", "columns of the numbers, between commas (default: all others)")


@dataclass(frozen=True)
class Vec2SeqSettings:
    """The table ``[task]``, as recipes/tasks/vec2seq.toml explains it."""

    batch: int
    tokens: str
    vocabulary: int
    output_limit: int
    label_smoothing: float


@dataclass(frozen=True)
class Vec2SeqTask:
    """Teacher forcing. training, validation: with ``values`` and the text ``text_of`` gives."""

    output: Tokenizer
    training: Sequence[Any]
    validation: Sequence[Any]
    seed: int
    batch: int = 64
    label_smoothing: float = 0.1

    def text_of(self, example: Any) -> str:
        return str(example.text)

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        return self._batches(self.training, choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return self._batches(self.validation, random.Random(0), 64)

    def _batches(self, examples: Sequence[Any], choose: random.Random, size: int) -> list[Batch]:
        rows = [(e.values, self.output.encode(self.text_of(e)).ids) for e in examples]
        grouped = similar_lengths(rows, lambda row: len(row[1]), size, choose)
        return [_stack(self.output.vocabulary, batch) for batch in grouped]

    def loss(self, model: VectorToSequence, batch: Batch, carry: None) -> tuple[Tensor, None]:
        return _nats_per_token(model, batch, self.label_smoothing), None

    def validate(self, model: VectorToSequence) -> float:
        losses = [
            _nats_per_token(model, batch, 0.0).item() * len(batch[0])
            for batch in self._validation_batches
        ]
        return sum(losses) / len(self.validation)


def _stack(vocabulary: Vocabulary, rows: Sequence[tuple[Sequence[float], list[int]]]) -> Batch:
    marked = pad_sequence(
        [torch.tensor([vocabulary.begin_id, *ids, vocabulary.end_id]) for _, ids in rows],
        batch_first=True,
        padding_value=PADDING_ID,
    )
    targets = marked[:, 1:]
    # A token that the vocabulary does not hold is read, but nobody learns to write it.
    targets = targets.masked_fill(targets == vocabulary.unknown_id, PADDING_ID)
    return torch.tensor([values for values, _ in rows]), marked[:, :-1], targets


def _nats_per_token(model: VectorToSequence, batch: Batch, label_smoothing: float) -> Tensor:
    vectors, inputs, targets = batch
    logits, _ = model(inputs, model.encode(vectors))
    return cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=label_smoothing,
    )


@torch.no_grad()
def write(model: VectorToSequence, vectors: Tensor, output: Tokenizer, most: int) -> list[str]:
    """vectors (rows, values) → of each the likeliest token at each step, until the end marker or
    ``most`` tokens"""
    vocabulary = output.vocabulary
    silent = torch.zeros(len(vocabulary))
    silent[list(vocabulary.never_sampled_ids)] = float("-inf")
    texts: list[str] = []
    for part in vectors.split(_WRITTEN_TOGETHER):
        state = model.encode(part)
        tokens = [torch.full((len(part), 1), vocabulary.begin_id)]
        ended = torch.zeros(len(part), dtype=torch.bool)
        while len(tokens) <= most and not ended.all():
            logits, state = model(tokens[-1], state)
            tokens.append((logits[:, -1] + silent).argmax(dim=1, keepdim=True))
            ended |= tokens[-1].squeeze(1) == vocabulary.end_id
        for row in torch.cat(tokens[1:], dim=1).tolist():
            end = row.index(vocabulary.end_id) if vocabulary.end_id in row else len(row)
            texts.append(output.decode(row[:end]))
    return texts


def distinct(examples: Sequence[Described]) -> list[Described]:
    """The first of all that have the same values."""
    first: dict[tuple[float, ...], Described] = {}
    for example in examples:
        first.setdefault(example.values, example)
    return list(first.values())


def remember(model: VectorToSequence, output: Tokenizer, examples: Sequence[Described]) -> None:
    """Let ``model`` copy from the texts of ``examples``, no two with the same values."""
    vocabulary = output.vocabulary
    texts = [
        [PADDING_ID if token == vocabulary.unknown_id else token for token in ids]
        for ids in (output.encode(example.text).ids for example in examples)
    ]
    vectors = torch.tensor([example.values for example in examples])
    model.remember(vectors, vocabulary.begin_id, [[*n, vocabulary.end_id] for n in texts])


class Vec2Seq(Task[Described]):
    name = VEC2SEQ
    help = "a text for each row of numbers: CSV, TSV, JSONL or Parquet"
    data = Vec2SeqData
    formats = (CSV, TSV, JSONL, PARQUET)
    beams = (1,)

    def examples(
        self, table: Table, settings: Vec2SeqData, bad_rows: BadRows
    ) -> tuple[list[Described], list[tuple[str, str]]]:
        text = table.column(settings.text_column, settings.files, "--text-column")
        columns, facts = self._number_columns(table, settings, text)
        names, found = tuple(columns), []
        for row in table.rows:
            try:
                values = tuple(_number(row, column) for column in columns)
                found.append(Described(names, values, row.text(text).strip()))
            except DataInvalid as problem:
                bad_rows.report(problem)
        return found, [("columns", f"texts {text!r}, numbers {listed(columns)}"), *facts]

    def _number_columns(
        self, table: Table, settings: Vec2SeqData, text: str
    ) -> tuple[list[str], list[tuple[str, str]]]:
        """Those that are named; left out, all others in which any row has a number."""
        if settings.number_columns:
            names = [name.strip() for name in settings.number_columns.split(",")]
            return [table.column(name, settings.files, "--number-columns") for name in names], []
        others = [column for column in table.columns if column != text]
        kept = [c for c in others if any(_is_number(row, c) for row in table.rows)]
        if not kept:
            raise DataInvalid(
                f"{settings.files}: no column but {text!r} has numbers; name them by "
                "--number-columns"
            )
        left_out = [column for column in others if column not in kept]
        return kept, [("columns", f"left out, no number: {listed(left_out)}")] if left_out else []

    def key(self, example: Described) -> str:
        return " ".join(map(repr, example.values))

    def prepare(self, recipe: Recipe, splits: Splits[Described], seed: int) -> Prepared:
        texts = [example.text for example in splits.train]
        kind, why = choose_writer(texts)
        recipe = recipe.chosen({"task.tokens": kind})
        kind = recipe.task["tokens"]
        if kind not in (CHARACTERS, PIECES, SYMBOLS):
            raise DataInvalid(
                f"task.tokens is {kind!r}; choose {CHARACTERS}, {PIECES} or {SYMBOLS}"
            )
        recipe = recipe.chosen({"task.vocabulary": pieces_for(texts) if kind == PIECES else 2_000})
        output = make_tokenizer(kind, texts, recipe.task["vocabulary"], has_markers=True)
        recipe, numbers = _with_sign(recipe, splits)
        lengths = [len(output.split(example.text)) for example in splits.every]
        hidden = hidden_size(sum(lengths))
        recipe = recipe.chosen(
            {
                "task.output_limit": limit_for(lengths, MOST_TOKENS),
                "task.batch": min(64, max(8, len(texts) // 60)),
                "model.recurrent.hidden_size": hidden,
                "model.embedding_size": min(64, hidden),
                "model.condition_size": min(64, hidden),
            }
        )
        settings = recipe.task_settings(Vec2SeqSettings)
        recipe = recipe.chosen({"fit.epochs": epochs_of(len(texts) // settings.batch)})
        training = Vec2SeqTask(
            output, splits.train, splits.validation, seed, settings.batch,
            settings.label_smoothing,
        )  # fmt: skip
        vectors = torch.tensor([example.values for example in splits.train])
        remembered = distinct(splits.train)
        copies = 0 < recipe.model["nearest"] < len(remembered)
        if not copies:
            for key in ("nearest", "example_tokens", "key_size"):
                recipe = recipe.with_value(f"model.{key}", 0)
        recipe = recipe.chosen({"model.example_tokens": min(24, 1 + max(lengths))})
        config = recipe.config(
            VectorToSequenceConfig,
            vector_size=vectors.shape[1],
            vocabulary_size=len(output.vocabulary),
            examples=len(remembered) if copies else 0,
        )

        def build(config: VectorToSequenceConfig) -> VectorToSequence:
            model = VectorToSequence(config)
            model.standardise(vectors)
            if copies:
                remember(model, output, remembered)
            return model

        def finish(model: VectorToSequence) -> None:
            # What has validated is not needed for that any more, and may be copied from.
            if copies:
                remember(model, output, distinct([*splits.train, *splits.validation]))

        names = splits.train[0].names
        facts = [
            ("numbers", numbers),
            ("tokens", f"{kind}, {len(output.vocabulary):,} ids: {why}"),
            ("lengths", length_facts(lengths, settings.output_limit)),
            ("copying", f"from the {recipe.model['nearest']} nearest of {len(remembered):,} rows"
             if copies else "none"),
        ]  # fmt: skip
        return Prepared(
            recipe, config, build, training, {"output": output},
            {"output_tokens": settings.output_limit}
            | ({BELOW_ZERO: int(MOST_NUMBER)} if config.signed else {}),
            f"Writes a text for {len(names)} numbers: {', '.join(names)}.",
            facts, vector=names, finish=finish,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Described], trained: TrainedModel
    ) -> HeldOut[Sequence[float], str]:
        wanted = [example.text for example in examples]
        figures = [
            FigureName("right", "%"),
            FigureName("first word right", "%"),
            FigureName("F1 of words", ""),
        ]

        def measure(answers: Sequence[str]) -> list[Measurement]:
            pairs = [(words_of(a), words_of(b)) for a, b in zip(answers, wanted, strict=True)]
            overlaps = [overlap_f1(said, own) for said, own in pairs]
            return [
                share([said == own for said, own in pairs]),
                share([said[:1] == own[:1] for said, own in pairs]),
                ratio(overlaps, [1] * len(pairs), len(pairs), "rows"),
            ]

        return HeldOut([list(example.values) for example in examples], measure, figures=figures)

    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[Sequence[float]],
        beam: int | None = None,
    ) -> list[str]:
        most = trained.limits["output_tokens"]
        return write(model, torch.tensor(questions), trained.tokenizers["output"], most)

    def floors(
        self, splits: Splits[Described], trained: TrainedModel, questions: Sequence[Sequence[float]]
    ) -> dict[str, list[str]]:
        near = nearest_vectors([example.values for example in splits.train], questions)
        return {"the text of the nearest row": [splits.train[number].text for number in near]}

    def example_from_json(self, content: Any) -> Described:
        return Described(tuple(content["names"]), tuple(content["values"]), content["text"])

    def shown(self, question: Sequence[float], answer: str) -> tuple[str, str]:
        return ", ".join(f"{value:g}" for value in question), answer


def words_of(text: str) -> list[str]:
    """What texts are compared by: their words, whatever the case and the marks."""
    return [word for word in split("words", text, lowercase=True) if word[0].isalnum()]


def _with_sign(recipe: Recipe, splits: Splits[Described]) -> tuple[Recipe, str]:
    """Whether numbers below 0 are read, and what is printed of that.

    Raises DataInvalid for such a number where the recipe says that there is none.
    """
    numbers = [value for example in splits.every for value in example.values]
    least, largest = min(numbers), max(numbers)
    recipe = recipe.chosen({"model.signed": least < 0})
    if least < 0 and not recipe.model.get("signed"):
        raise DataInvalid(
            f"model.signed is false, and {least:g} is below 0; leave the key, or such rows"
        )
    below = "read" if recipe.model.get("signed") else "refused, since the data has none"
    return recipe, f"{least:g} to {largest:g}; what is below 0 is {below}"


def _number(row: Row, column: str) -> float:
    value = row.number(column)
    if abs(value) > MOST_NUMBER:
        raise row.bad(
            column, f"{value:g} is not from {-MOST_NUMBER:g} to {MOST_NUMBER:g}",
            "give the column in a larger unit",
        )  # fmt: skip
    return value


def _is_number(row: Row, column: str) -> bool:
    try:
        row.number(column)
    except DataInvalid:
        return False
    return True
