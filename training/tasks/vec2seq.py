"""Texts made of numbers: a vector of fixed size and what is written for it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import BELOW_ZERO, UNKNOWN_VALUES, VEC2SEQ
from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import PADDING_ID, Vocabulary
from training.batching import similar_lengths
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.field_dropout import FieldDropout
from training.floors.nearest import nearest_vectors
from training.held_out import FigureName, HeldOut
from training.measurements import Measurement, ratio, share
from training.metrics import overlap_f1
from training.models.example_ranker import RankedExamples
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
HIDDEN_SHARE = 0.3  # of the rows, some values while training, where the data has empty cells
_WRITTEN_TOGETHER = 256

# vectors (batch, values), inputs and targets (batch, tokens): begin + text, text + end
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Described:
    """names: of the values, of which NaN is unknown."""

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
    unknown_fields: float
    ranking: float


@dataclass(frozen=True)
class Vec2SeqTask:
    """Teacher forcing. training, validation: with ``values`` and the text ``text_of`` gives.

    fields: which values are hidden while training; None: none are. ranking: weight of the F1 that
    is expected of the examples to copy from, beside the text's likelihood.
    """

    output: Tokenizer
    training: Sequence[Any]
    validation: Sequence[Any]
    seed: int
    batch: int = 64
    label_smoothing: float = 0.1
    fields: FieldDropout | None = None
    ranking: float = 0.0

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
        shown = self.fields.shown(len(batch[0])).to(batch[0].device) if self.fields else None
        nats, ranked = _nats_per_token(model, batch, self.label_smoothing, shown)
        if self.ranking and ranked is not None:
            nats = nats - self.ranking * ranked.expected_overlap(batch[2]).mean()
        return nats, None

    def validate(self, model: VectorToSequence) -> float:
        """Of whole vectors, and as much of the same with values hidden where training hides any."""
        batches = self._validation_batches
        losses = [_nats_per_token(model, b, 0.0)[0].item() * len(b[0]) for b in batches]
        if not self.fields:
            return sum(losses) / len(self.validation)
        drawn = torch.Generator().manual_seed(0)
        hides = replace(self.fields, share=1.0)
        for batch in batches:
            shown = hides.shown(len(batch[0]), drawn)
            losses.append(_nats_per_token(model, batch, 0.0, shown)[0].item() * len(batch[0]))
        return sum(losses) / (2 * len(self.validation))


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


def _nats_per_token(
    model: VectorToSequence, batch: Batch, label_smoothing: float, shown: Tensor | None = None
) -> tuple[Tensor, RankedExamples | None]:
    """And the examples that the model may have copied from; shown: as VectorToSequence.read."""
    vectors, inputs, targets = batch
    state, ranked = model.read(vectors, shown)
    logits, _ = model(inputs, state)
    nats = cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=label_smoothing,
    )
    return nats, ranked


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
    """The first of all that have the same values; unknown ones are alike."""
    first: dict[str, Described] = {}
    for example in examples:
        first.setdefault(repr(example.values), example)
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
                if all(map(math.isnan, values)):
                    raise row.bad(columns[0], "no number in any column", "leave the row out")
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
        recipe, unknown = _with_unknown(recipe, splits)
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
        names, hides = splits.train[0].names, settings.unknown_fields > 0
        training = Vec2SeqTask(
            output, splits.train, splits.validation, seed, settings.batch,
            settings.label_smoothing,
            FieldDropout(len(names), settings.unknown_fields) if hides else None,
            settings.ranking,
        )  # fmt: skip
        vectors = torch.tensor([example.values for example in splits.train])
        remembered = distinct(splits.train)
        copies = 0 < recipe.model["nearest"] < len(remembered)
        if not copies:
            for key in ("nearest", "example_tokens", "key_size", "candidates", "ranker_size"):
                recipe = recipe.with_value(f"model.{key}", 0)
        recipe = recipe.chosen({"model.example_tokens": min(24, 1 + max(lengths))})
        config = recipe.config(
            VectorToSequenceConfig,
            vector_size=vectors.shape[1],
            vocabulary_size=len(output.vocabulary),
            examples=len(remembered) if copies else 0,
            unknown=hides,
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

        facts = [
            ("numbers", numbers),
            ("unknown", unknown),
            ("tokens", f"{kind}, {len(output.vocabulary):,} ids: {why}"),
            ("lengths", length_facts(lengths, settings.output_limit)),
            ("copying", f"from the {recipe.model['nearest']} nearest of {len(remembered):,} rows"
             if copies else "none"),
        ]  # fmt: skip
        return Prepared(
            recipe, config, build, training, {"output": output},
            {"output_tokens": settings.output_limit}
            | ({BELOW_ZERO: int(MOST_NUMBER)} if config.signed else {})
            | ({UNKNOWN_VALUES: len(names) - 1} if config.unknown else {}),
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
        values = tuple(math.nan if value is None else value for value in content["values"])
        return Described(tuple(content["names"]), values, content["text"])

    def example_to_json(self, example: Described) -> Any:
        values = [None if math.isnan(value) else value for value in example.values]
        return {**vars(example), "values": values}

    def shown(self, question: Sequence[float], answer: str) -> tuple[str, str]:
        shown = ("unknown" if math.isnan(value) else f"{value:g}" for value in question)
        return ", ".join(shown), answer


def words_of(text: str) -> list[str]:
    """What texts are compared by: their words, whatever the case and the marks."""
    return [word for word in split("words", text, lowercase=True) if word[0].isalnum()]


def _with_sign(recipe: Recipe, splits: Splits[Described]) -> tuple[Recipe, str]:
    """Whether numbers below 0 are read, and what is printed of that.

    Raises DataInvalid for such a number where the recipe says that there is none.
    """
    numbers = [v for example in splits.every for v in example.values if not math.isnan(v)]
    least, largest = min(numbers), max(numbers)
    recipe = recipe.chosen({"model.signed": least < 0})
    if least < 0 and not recipe.model.get("signed"):
        raise DataInvalid(
            f"model.signed is false, and {least:g} is below 0; leave the key, or such rows"
        )
    below = "read" if recipe.model.get("signed") else "refused, since the data has none"
    return recipe, f"{least:g} to {largest:g}; what is below 0 is {below}"


def _with_unknown(recipe: Recipe, splits: Splits[Described]) -> tuple[Recipe, str]:
    """How often values are hidden while training, and what is printed of that.

    Raises DataInvalid for an unknown value where the recipe says that there is none.
    """
    lack = sum(any(map(math.isnan, example.values)) for example in splits.every)
    recipe = recipe.chosen({"task.unknown_fields": HIDDEN_SHARE if lack else 0.0})
    share = recipe.task["unknown_fields"]
    if not 0 <= share <= 1:
        raise DataInvalid(f"task.unknown_fields is {share}; choose a share from 0 to 1")
    if lack and not share:
        raise DataInvalid(
            f"task.unknown_fields is 0, and {lack:,} rows have an empty number; leave the key, "
            "fill the cells, or leave such rows out"
        )
    if not share:
        return recipe, "refused, since the data has no empty cell"
    return (
        recipe,
        f"read; {lack:,} rows have empty cells, and some values of {share:.0%} are hidden",
    )


def _number(row: Row, column: str) -> float:
    """NaN for an empty cell."""
    if row.is_empty(column):
        return math.nan
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
