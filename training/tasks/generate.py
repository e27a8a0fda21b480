"""Texts that go on: the next token from the tokens so far."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bundle.manifest import GENERATE
from bundle.tokenizer import Tokenizer
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.floors.ngram import NGram
from training.held_out import FigureName, HeldOut
from training.likelihood import Reader, nats_of
from training.measurements import Measurement, ratio
from training.models.cells import State
from training.models.generator import Generator, GeneratorConfig
from training.readers import CSV, JSONL, LINES, PARQUET, TEXT, TSV, BadRows, DataInvalid, Table
from training.splits import Splits, epochs_of, hidden_size
from training.subwords import learn_subwords, learn_words, read_tokenizer_json
from training.tasks.base import DataSettings, Flag, Prepared, Task, data_name, option
from training.tasks.texts import count_vocabulary

CHARACTERS, WORDS, PIECES = "characters", "words", "pieces"
LIMIT = 8192  # tokens of a prompt, and of what is written
SCORED_TOGETHER = 4_000  # tokens of a held-out question
CONTEXT = 256  # tokens before them that are only read
MOST_SCORED = 200_000  # held-out tokens that are measured
SIDE_BY_SIDE = 32  # questions that are read together
BLOCK = 500  # neighbouring tokens that an interval's bootstrap draws together
_MOST_COUNTED = 500_000  # training tokens that n-grams are counted on
_LEAST_CHARACTERS = 2_000  # of all texts together

# A text, and how many of its first tokens are only read.
Question = tuple[str, int]
Batch = tuple[Tensor, Tensor]  # inputs, targets (lanes, window)


@dataclass(frozen=True)
class Document:
    text: str


@dataclass(frozen=True)
class GenerateData(DataSettings):
    text_column: str = option("text", "column of the texts, of files with columns")


@dataclass(frozen=True)
class GenerateSettings:
    """The table ``[task]``, as recipes/tasks/generate.toml explains it."""

    tokens: str
    vocabulary: int
    lanes: int
    window: int
    cold_starts: float


@dataclass(frozen=True)
class GenerateTask:
    """Teacher forcing over ``lanes`` readers of the texts, each carrying its state along.

    cold_starts: share of the windows that a lane reads as if nothing stood before: a text that is
    served begins without a state, wherever a user has it begin.
    training, validation: token ids of each text, markers included.
    """

    training: Sequence[Tensor]
    validation: Sequence[Tensor]
    seed: int
    lanes: int = 32
    window: int = 64
    cold_starts: float = 0.0

    def batches(self, epoch: int) -> list[Batch]:
        """Each epoch joins the texts in another order, and cuts them at another place."""
        lanes, window = self.lanes, self.window
        shuffle = torch.Generator().manual_seed(self.seed * 10_007 + epoch)
        offset = int(torch.randint(window, (), generator=shuffle))
        order = list(self.training)
        if len(order) > 1:
            random.Random(self.seed * 10_007 + epoch).shuffle(order)
        joined = torch.cat(order)
        width = (len(joined) - offset - 1) // (lanes * window) * window
        if width < window:
            return []
        text = joined[offset : offset + lanes * width + 1]
        inputs = text[:-1].view(lanes, width).split(window, dim=1)
        targets = text[1:].view(lanes, width).split(window, dim=1)
        return list(zip(inputs, targets, strict=True))

    def loss(self, model: nn.Module, batch: Batch, carry: State | None) -> tuple[Tensor, State]:
        inputs, targets = batch
        logits, state = model(inputs, carry and self._some_forgotten(carry))
        return cross_entropy(logits.flatten(0, 1), targets.flatten()), state

    def _some_forgotten(self, state: State) -> State:
        """state (lanes, features) a part, of some lanes zero"""
        if not self.cold_starts:
            return state
        kept = torch.rand(len(state[0]), 1, device=state[0].device) >= self.cold_starts
        return tuple(part * kept for part in state)

    @cached_property
    def _validation_pieces(self) -> list[tuple[Tensor, int]]:
        return pieces_of(self.validation)

    def validate(self, model: nn.Module) -> float:
        nats = nats_of_pieces(model, self._validation_pieces)
        return float(torch.cat(nats).mean())


def pieces_of(
    texts: Sequence[Tensor], together: int = SCORED_TOGETHER, context: int = CONTEXT
) -> list[tuple[Tensor, int]]:
    """Pieces that make up the texts, but for the first token of each, and how many of a piece's
    first tokens are only read: ``context`` of those before it, where there are as many."""
    pieces = []
    for ids in texts:
        edges = [*range(1, len(ids), together), len(ids)]
        for start, end in pairwise(edges):
            begin = max(0, start - 1 - context)
            pieces.append((ids[begin:end], start - begin))
    return pieces


def nats_of_pieces(model: Reader, pieces: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
    """-log p of each scored token of each piece; pieces of like length are read together."""
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number][0]))
    found: list[Tensor] = [torch.empty(0)] * len(pieces)
    for start in range(0, len(order), SIDE_BY_SIDE):
        part = order[start : start + SIDE_BY_SIDE]
        for number, nats in zip(part, nats_of(model, [pieces[n] for n in part]), strict=True):
            found[number] = nats
    return found


def nats_per_token(model: Reader, ids: Tensor) -> float:
    """Mean -log p of each of ``ids`` (tokens,) but the first."""
    return float(torch.cat(nats_of_pieces(model, pieces_of([ids]))).mean())


class Generate(Task[Document]):
    name = GENERATE
    help = "texts that go on: plain text files, or a column of CSV, TSV, JSONL or Parquet"
    data = GenerateData
    formats = (TEXT, LINES, CSV, TSV, JSONL, PARQUET)
    flags = {  # noqa: RUF012
        "tokens": Flag(
            "task.tokens", "characters, words, pieces, or a tokenizer.json (default: characters)"
        )
    }

    def examples(
        self, table: Table, settings: GenerateData, bad_rows: BadRows
    ) -> tuple[list[Document], list[tuple[str, str]]]:
        column = table.column(settings.text_column, settings.files, "--text-column")
        found = []
        for row in table.rows:
            try:
                # A file is one row, and longer than a cell may be.
                value = row.values[column] if table.columns == ("text",) else row.text(column)
                found.append(Document(value if isinstance(value, str) else row.text(column)))
            except DataInvalid as problem:
                bad_rows.report(problem)
        count = "one text" if len(found) == 1 else f"{len(found):,} texts"
        characters = sum(len(document.text) for document in found)
        return found, [("texts", f"{count}, {characters:,} characters")]

    def key(self, example: Document) -> str:
        return example.text

    def split(
        self,
        rows: Sequence[Document],
        settings: DataSettings,
        validation: Sequence[Document] | None,
        held_out: Sequence[Document] | None,
    ) -> Splits[Document]:
        """One text is cut where a word ends: its last part is held out, that before validates."""
        if len(rows) > 1:
            return super().split(rows, settings, validation, held_out)
        text = rows[0].text
        if len(text) < _LEAST_CHARACTERS:
            raise DataInvalid(
                f"{len(text):,} characters of text; give at least {_LEAST_CHARACTERS:,}"
            )
        held = len(text) * (0.0 if held_out is not None else settings.held_out_share)
        validating = len(text) * (0.0 if validation is not None else settings.validation_share)
        second = _word_end(text, round(len(text) - held))
        first = _word_end(text, round(second - validating))
        parts = [Document(part) for part in (text[:first], text[first:second], text[second:])]
        return Splits(
            parts[:1],
            parts[1:2] if validation is None else validation,
            parts[2:] if held_out is None else held_out,
            (
                f"the text's first {first:,} characters train"
                + (f", {second - first:,} after them validate" if validation is None else "")
                + (f", the last {len(text) - second:,} are held out" if held_out is None else ""),
            ),
            "the end of the text" if held_out is None else "the held-out file",
        )

    def prepare(self, recipe: Recipe, splits: Splits[Document], seed: int) -> Prepared:
        recipe = recipe.chosen({"task.tokens": CHARACTERS})
        train = [document.text for document in splits.train]
        knows_beginning = len(train) > 1
        kind = recipe.task["tokens"]
        if recipe.is_auto("task.vocabulary"):
            characters = sum(map(len, train))
            most = {WORDS: 10_000, PIECES: min(8_000, max(300, characters // 60))}
            recipe = recipe.with_value("task.vocabulary", most.get(kind, 1_000))
        tokenizer = make_tokenizer(kind, train, recipe.task["vocabulary"], knows_beginning)
        ids = [self._ids(tokenizer, document) for document in splits.train]
        tokens = sum(map(len, ids))
        lanes = min(32, max(2, tokens // 8_000))
        hidden = hidden_size(tokens)
        recipe = recipe.chosen(
            {
                "task.lanes": lanes,
                "task.window": 64 if tokens > 64 * 8 * lanes else 16,
                "model.recurrent.hidden_size": hidden,
                "model.embedding_size": 64 if kind == CHARACTERS else hidden,
                "model.tied": kind != CHARACTERS,
            }
        )
        settings = recipe.task_settings(GenerateSettings)
        validation = [self._ids(tokenizer, document) for document in splits.validation]
        training = GenerateTask(
            ids, validation, seed, settings.lanes, settings.window, settings.cold_starts
        )
        batches = len(training.batches(0))
        if not batches:
            raise DataInvalid(
                f"{tokens:,} tokens to train on, fewer than {settings.lanes} lanes of "
                f"{settings.window} take; give more text, or --set task.lanes=1 task.window=16"
            )
        recipe = recipe.chosen({"fit.epochs": epochs_of(batches)})
        vocabulary = tokenizer.vocabulary
        config = recipe.config(GeneratorConfig, vocabulary_size=len(vocabulary))
        unknown = sum(int((row == vocabulary.unknown_id).sum()) for row in validation)
        scored = max(1, sum(map(len, validation)))
        begins = "each begins with a marker, so that one may begin from nothing"
        facts = [
            ("tokens", f"{kind}, {len(vocabulary):,} ids: {tokens:,} train, "
             f"{100 * unknown / scored:.1f} % of those that validate are unknown"),
            ("texts", begins if knows_beginning else "one: what goes on needs a prompt"),
        ]  # fmt: skip
        return Prepared(
            recipe, config, Generator, training, {"input": tokenizer, "output": tokenizer},
            {"input_tokens": LIMIT, "output_tokens": LIMIT},
            f"Goes on with a text, in {kind if kind in (CHARACTERS, WORDS) else PIECES} that it "
            f"learnt from {data_name(recipe)}.",
            facts,
        )  # fmt: skip

    def _ids(self, tokenizer: Tokenizer, document: Document) -> Tensor:
        ids = tokenizer.encode(document.text).ids
        vocabulary = tokenizer.vocabulary
        if vocabulary.has_markers:
            ids = [vocabulary.begin_id, *ids, vocabulary.end_id]
        return torch.tensor(ids)

    def held_out(
        self, examples: Sequence[Document], trained: TrainedModel
    ) -> HeldOut[Question, Sequence[float]]:
        """What stands between the beginning and the end of texts: markers are not scored."""
        tokenizer = trained.tokenizers["input"]
        questions, characters, scored = [], [], 0
        for document in examples:
            symbols = tokenizer.split(document.text)
            if len(symbols) < 2 or scored > MOST_SCORED:
                continue
            numbers = torch.arange(len(symbols))
            for piece, read in pieces_of([numbers]):
                begin, end = int(piece[0]), int(piece[-1]) + 1
                questions.append((tokenizer.join(symbols[begin:end]), read))
                characters.append(sum(map(len, symbols[begin + read : end])))
                scored += len(piece) - read
                if scored > MOST_SCORED:
                    break
        if not questions:
            raise DataInvalid("what is held out has no text of two tokens; give longer texts")
        unit = _unit(tokenizer)
        figures = [FigureName("loss", f"nats a {unit}")]
        if unit != "character":
            figures.append(FigureName("loss by characters", "nats a character"))

        def measure(answers: Sequence[Sequence[float]]) -> list[Measurement]:
            nats = [each for answer in answers for each in answer]
            blocks = [nats[at : at + BLOCK] for at in range(0, len(nats), BLOCK)]
            sums, sizes = [sum(block) for block in blocks], [len(block) for block in blocks]
            measured = [ratio(sums, sizes, len(nats), f"blocks of {BLOCK} {unit}s")]
            if len(figures) > 1:
                of_each = [sum(answer) for answer in answers]
                count = sum(characters)
                measured.append(ratio(of_each, characters, count, "pieces of the text"))
            return measured

        return HeldOut(questions, measure, figures=figures)

    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[Question],
        beam: int | None = None,
    ) -> list[list[float]]:
        tokenizer = trained.tokenizers["input"]
        pieces = [(torch.tensor(tokenizer.encode(text).ids), read) for text, read in questions]
        return [nats.tolist() for nats in nats_of_pieces(model, pieces)]

    def floors(
        self, splits: Splits[Document], trained: TrainedModel, questions: Sequence[Question]
    ) -> dict[str, list[Sequence[float]]]:
        tokenizer = trained.tokenizers["input"]
        unit = _unit(tokenizer)
        order = 5 if unit == "character" else 3
        learnt, left = [], _MOST_COUNTED
        for document in splits.train:
            ids = self._ids(tokenizer, document).tolist()[:left]
            left -= len(ids)
            learnt.append(ids)
        counted = NGram(learnt, order, len(tokenizer.vocabulary) - 1)
        alone = NGram(learnt, 1, len(tokenizer.vocabulary) - 1)
        read = [(tokenizer.encode(text).ids, first) for text, first in questions]
        return {
            f"how frequent each {unit} is": [alone.nats(ids, first) for ids, first in read],
            f"the {order - 1} {unit}s before, counted": [counted.nats(*each) for each in read],
        }

    def example_from_json(self, content: Any) -> Document:
        return Document(**content)

    def shown(self, question: Question, answer: Sequence[float]) -> tuple[str, str]:
        return question[0], f"{sum(answer) / len(answer):.3f} nats a token"


def _unit(tokenizer: Tokenizer) -> str:
    return "character" if tokenizer.kind == CHARACTERS else "token"


def make_tokenizer(kind: str, texts: Sequence[str], most: int, has_markers: bool) -> Tokenizer:
    """Raises DataInvalid for a kind, or a tokenizer.json, that is none."""
    if kind == CHARACTERS:
        symbols = (character for text in texts for character in text)
        return Tokenizer(kind, count_vocabulary(symbols, most, has_markers))
    if kind == WORDS:
        return learn_words(texts, most, has_markers)
    if kind == PIECES:
        return learn_subwords(texts, most, has_markers)
    if kind.endswith(".json"):
        return read_tokenizer_json(Path(kind), texts, has_markers)
    raise DataInvalid(
        f"tokens are {kind!r}; choose {CHARACTERS}, {WORDS}, {PIECES} or a tokenizer.json"
    )


def _word_end(text: str, place: int) -> int:
    """The first place from ``place`` at which a word has ended."""
    for at in range(place, min(place + 1_000, len(text))):
        if text[at].isspace():
            return at
    return place
