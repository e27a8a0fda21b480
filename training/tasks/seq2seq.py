"""Texts made of other texts: pairs of a source and a target."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import SEQ2SEQ
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import PADDING_ID
from training.alignment import draw_alignment
from training.beam import BeamModel, BeamSettings, Hypothesis, beam_hypotheses, best_of
from training.bpe import cut_at_random
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.floors.nearest import NearestText
from training.held_out import FigureName, HeldOut
from training.measurements import ROUNDS, Measurement, ratio, share
from training.metrics import edit_distance
from training.models.seq2seq import Seq2Seq, Seq2SeqConfig
from training.readers import CSV, JSONL, PARQUET, TSV, BadRows, DataInvalid, Table
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import DataSettings, Prepared, Task, data_name, option
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
WRITTEN_TOGETHER = 32
_SENTENCE = 5  # words of a target from which on BLEU says something

# source (batch, tokens), inputs and targets (batch, tokens), all rows of one source length
Batch = tuple[Tensor, Tensor, Tensor]
# A source's ids, and a target's between its markers.
Row = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pair:
    source: str
    target: str


@dataclass(frozen=True)
class Seq2SeqData(DataSettings):
    source_column: str = option("", "column of the sources (default: source, or the first of two)")
    target_column: str = option("", "column of the targets (default: target, or the second of two)")


@dataclass(frozen=True)
class Seq2SeqSettings:
    """The table ``[task]``, as recipes/tasks/seq2seq.toml explains it."""

    batch: int
    source_tokens: str
    target_tokens: str
    source_vocabulary: int
    target_vocabulary: int
    source_limit: int
    target_limit: int
    lowercase_source: bool
    label_smoothing: float
    random_cuts: float
    length_penalties: tuple[float, ...] = ()


@dataclass(frozen=True)
class Seq2SeqTask:
    """Teacher forcing; batches hold sources of one length, so the encoder pads nothing.

    batch: tokens of all sources. random_cuts: chance that a word's cut into pieces passes over a
    longer one while training. source_limit, target_limit: a longer pair is left out.
    """

    source: Tokenizer
    target: Tokenizer
    training: Sequence[Pair]
    validation: Sequence[Pair]
    seed: int
    batch: int
    source_limit: int
    target_limit: int
    label_smoothing: float = 0.0
    random_cuts: float = 0.0

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        rows = self._whole_rows
        if self.random_cuts:
            rows = self._rows(self.training, self.random_cuts, choose)
        return self._batches(rows, choose)

    @cached_property
    def _whole_rows(self) -> list[Row]:
        return self._rows(self.training, 0.0, random.Random(0))

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        choose = random.Random(0)
        return self._batches(self._rows(self.validation, 0.0, choose), choose)

    def _rows(self, pairs: Sequence[Pair], cuts: float, choose: random.Random) -> list[Row]:
        encode_source = _encoder(self.source, cuts, choose)
        encode_target = _encoder(self.target, cuts, choose)
        begin, end = self.target.vocabulary.begin_id, self.target.vocabulary.end_id
        rows = []
        for pair in pairs:
            source, target = encode_source(pair.source), encode_target(pair.target)
            if 0 < len(source) <= self.source_limit and len(target) < self.target_limit:
                rows.append((torch.tensor(source), torch.tensor([begin, *target, end])))
        return rows

    def _batches(self, rows: Sequence[Row], choose: random.Random) -> list[Batch]:
        by_length: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_length[len(row[0])].append(row)
        batches = []
        for length, same in by_length.items():
            # Targets of similar length side by side, so that little of a batch is padding.
            same.sort(key=lambda row: len(row[1]) + 4 * choose.random())
            size = max(1, self.batch // length)
            for start in range(0, len(same), size):
                sources, targets = zip(*same[start : start + size], strict=True)
                marked = pad_sequence(list(targets), batch_first=True, padding_value=PADDING_ID)
                batches.append((torch.stack(sources), marked[:, :-1], marked[:, 1:]))
        choose.shuffle(batches)
        return batches

    def loss(self, model: Seq2Seq, batch: Batch, carry: None) -> tuple[Tensor, None]:
        total, count = _nats(model, batch, self.label_smoothing)
        return total / count, None

    def validate(self, model: Seq2Seq) -> float:
        """Nats a token of the targets."""
        sums = [_nats(model, batch, 0.0) for batch in self._validation_batches]
        return sum(total.item() for total, _ in sums) / sum(count for _, count in sums)


def _encoder(
    tokenizer: Tokenizer, cuts: float, choose: random.Random
) -> Callable[[str], list[int]]:
    if not cuts or tokenizer.kind != PIECES:
        return lambda text: tokenizer.encode(text).ids
    id_of = tokenizer.vocabulary.id_of
    return lambda text: [
        id_of(piece)
        for word in text.split()
        for piece in cut_at_random(tokenizer, word, cuts, choose)
    ]


def _nats(model: Seq2Seq, batch: Batch, label_smoothing: float) -> tuple[Tensor, int]:
    """The sum over the batch, and of how many tokens."""
    source, inputs, targets = batch
    logits, _ = model(inputs, model.encode(source, None))
    total = cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total, int((targets != PADDING_ID).sum())


def write(
    model: BeamModel,
    source: Tokenizer,
    target: Tokenizer,
    texts: Sequence[str],
    source_limit: int,
    beam: BeamSettings,
) -> list[str]:
    """What ``model`` writes for each text."""
    found = hypotheses_of(model, source, target, texts, source_limit, beam)
    return [target.decode(best_of(hypotheses, beam.penalty)) for hypotheses in found]


def hypotheses_of(
    model: BeamModel,
    source: Tokenizer,
    target: Tokenizer,
    texts: Sequence[str],
    source_limit: int,
    beam: BeamSettings,
) -> list[list[Hypothesis]]:
    """Those of each text; sources of like length are read together."""
    encoded = [torch.tensor(source.encode(text).ids[:source_limit]) for text in texts]
    order = sorted(range(len(texts)), key=lambda number: len(encoded[number]))
    every: list[list[Hypothesis]] = [[] for _ in texts]
    for start in range(0, len(order), WRITTEN_TOGETHER):
        part = order[start : start + WRITTEN_TOGETHER]
        lengths = torch.tensor([len(encoded[number]) for number in part])
        padded = pad_sequence([encoded[number] for number in part], batch_first=True)
        found = beam_hypotheses(model, padded, lengths, target.vocabulary, beam)
        for number, hypotheses in zip(part, found, strict=True):
            every[number] = hypotheses
    return every


class Seq2SeqOfFiles(Task[Pair]):
    name = SEQ2SEQ
    help = "a text made of another: CSV, TSV, JSONL or Parquet with sources and targets"
    data = Seq2SeqData
    formats = (TSV, CSV, JSONL, PARQUET)
    beams: ClassVar[tuple[int | None, ...]] = (1,)

    def has_header(self, settings: Seq2SeqData) -> bool:
        """Two columns that nobody names have no header, as files of pairs do."""
        if settings.header == "auto" and not settings.named_columns():
            return False
        return super().has_header(settings)

    def examples(
        self, table: Table, settings: Seq2SeqData, bad_rows: BadRows
    ) -> tuple[list[Pair], list[tuple[str, str]]]:
        table = _named(table)
        source, target = self._columns(table, settings)
        found = []
        for row in table.rows:
            try:
                found.append(Pair(row.text(source).strip(), row.text(target).strip()))
            except DataInvalid as problem:
                bad_rows.report(problem)
        return found, [("columns", f"sources {source!r}, targets {target!r}")]

    def _columns(self, table: Table, settings: Seq2SeqData) -> tuple[str, str]:
        chosen = []
        for place, name in enumerate(("source", "target")):
            wanted = getattr(settings, f"{name}_column")
            if not wanted and name not in table.columns and len(table.columns) == 2:
                wanted = str(place + 1)
            chosen.append(table.column(wanted or name, settings.files, f"--{name}-column"))
        if chosen[0] == chosen[1]:
            raise DataInvalid(
                f"column {chosen[0]!r} cannot be source and target at once; choose another "
                "--target-column"
            )
        return chosen[0], chosen[1]

    def key(self, example: Pair) -> str:
        return example.source

    def prepare(self, recipe: Recipe, splits: Splits[Pair], seed: int) -> Prepared:
        facts = []
        readers: dict[str, Tokenizer] = {}
        for side in ("source", "target"):
            texts = [getattr(pair, side) for pair in splits.train]
            kind, why = choose_writer(texts)
            most = pieces_for(texts) if kind == PIECES else 2_000
            recipe = recipe.chosen({f"task.{side}_tokens": kind})
            kind = recipe.task[f"{side}_tokens"]
            recipe = recipe.chosen({f"task.{side}_vocabulary": most})
            if kind not in (CHARACTERS, PIECES, SYMBOLS):
                raise DataInvalid(
                    f"task.{side}_tokens is {kind!r}; choose {CHARACTERS}, {PIECES} or {SYMBOLS}"
                )
            is_source = side == "source"
            lowercase = is_source and bool(recipe.task["lowercase_source"])
            most = recipe.task[f"{side}_vocabulary"]
            readers[side] = make_tokenizer(kind, texts, most, lowercase, not is_source)
            lengths = [len(readers[side].split(getattr(pair, side))) for pair in splits.every]
            recipe = recipe.chosen({f"task.{side}_limit": limit_for(lengths, MOST_TOKENS)})
            limit = recipe.task[f"{side}_limit"]
            ids = len(readers[side].vocabulary)
            facts.append((f"{side}s", f"{kind}, {ids:,} ids: {why}"))
            facts.append((f"{side}s", length_facts(lengths, limit)))
        source, target = readers["source"], readers["target"]
        tokens = sum(len(target.split(pair.target)) for pair in splits.train)
        read = sum(len(source.split(pair.source)) for pair in splits.train)
        # Attention with too few rows of training looks at nothing: small batches, more steps.
        batch = min(1_500, max(150, read // 60))
        hidden = hidden_size(tokens)
        recipe = recipe.chosen(
            {
                "task.batch": batch,
                "model.recurrent.hidden_size": hidden,
                "model.embedding_size": min(128, hidden),
            }
        )
        settings = recipe.task_settings(Seq2SeqSettings)
        training = Seq2SeqTask(
            source, target, splits.train, splits.validation, seed, settings.batch,
            settings.source_limit, settings.target_limit, settings.label_smoothing,
            settings.random_cuts,
        )  # fmt: skip
        recipe = recipe.chosen({"fit.epochs": epochs_of(len(training.batches(0)))})
        config = recipe.config(
            Seq2SeqConfig,
            source_vocabulary_size=len(source.vocabulary),
            target_vocabulary_size=len(target.vocabulary),
            source_limit=settings.source_limit,
        )
        return Prepared(
            recipe, config, Seq2Seq, training, {"input": source, "output": target},
            {"input_tokens": settings.source_limit, "output_tokens": settings.target_limit},
            f"Makes a text of another, as {data_name(recipe)} has pairs of them.",
            facts,
        )  # fmt: skip

    def adjust(
        self, model: Any, recipe: Recipe, splits: Splits[Pair], trained: TrainedModel
    ) -> TrainedModel:
        """Chooses the length penalty of a beam search, by the first figure of what validates."""
        tried = recipe.task_settings(Seq2SeqSettings).length_penalties
        if not tried:
            return trained
        asked, (reader, writer) = self.held_out(splits.validation, trained), _tokenizers(trained)
        search = BeamSettings(self.beams[-1] or 1, 1.0, trained.limits["output_tokens"])
        found = hypotheses_of(
            model, reader, writer, asked.questions, trained.limits["input_tokens"], search
        )
        scores = [
            asked.measure([writer.decode(best_of(one, penalty)) for one in found])[0].value
            for penalty in tried
        ]
        listed = ", ".join(f"{p:g} {score:.2f}" for p, score in zip(tried, scores, strict=True))
        best = max(range(len(tried)), key=scores.__getitem__)
        print(f"length penalty {tried[best]:g}: {asked.figures[0].name} on validation {listed}")
        chosen = replace(trained, length_penalty=tried[best])
        return chosen.with_facts({"length_penalties": listed})

    def held_out(self, examples: Sequence[Pair], trained: TrainedModel) -> HeldOut[str, str]:
        """Each source once, with all its targets: an answer is as right as the nearest of them."""
        writer, limit = trained.tokenizers["output"], trained.limits["input_tokens"]
        wanted: dict[str, list[str]] = defaultdict(list)
        for pair in examples:
            if len(trained.tokenizers["input"].split(pair.source)) <= limit:
                wanted[pair.source].append(pair.target)
        if not wanted:
            raise DataInvalid("every held-out source is longer than the limit; raise source_limit")
        unit = "character" if writer.kind == CHARACTERS else "word"
        figures = [
            FigureName("right", "%"),
            FigureName(f"{unit} error rate", "%"),
            FigureName("chrF", "points"),
        ]
        words = statistics.median(len(targets[0].split()) for targets in wanted.values())
        if words >= _SENTENCE:
            figures.append(FigureName("BLEU", "points"))

        def cut(text: str) -> list[str]:
            return list(text) if unit == "character" else text.split()

        def measure(answers: Sequence[str]) -> list[Measurement]:
            near = [
                min((edit_distance(cut(said), cut(target)), len(cut(target))) for target in targets)
                for said, targets in zip(answers, wanted.values(), strict=True)
            ]
            edits, lengths = zip(*near, strict=True)
            first = [targets[0] for targets in wanted.values()]
            return [
                share([distance == 0 for distance in edits]),
                ratio(edits, lengths, len(near), "sources", scale=100),
                *(
                    _corpus_score(metric, answers, first)
                    for metric in (CHRF(), BLEU())[: len(figures) - 2]
                ),
            ]

        return HeldOut(list(wanted), measure, figures=figures)

    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[str],
        beam: int | None = None,
    ) -> list[str]:
        penalty = 1.0 if trained.length_penalty is None else trained.length_penalty
        search = BeamSettings(beam or 1, penalty, trained.limits["output_tokens"])
        reader, writer = _tokenizers(trained)
        return write(model, reader, writer, questions, trained.limits["input_tokens"], search)

    def floors(
        self, splits: Splits[Pair], trained: TrainedModel, questions: Sequence[str]
    ) -> dict[str, list[str]]:
        known = NearestText([pair.source for pair in splits.train])
        return {
            "copying the source": list(questions),
            "the target of the nearest source": [
                splits.train[known.nearest(text)].target for text in questions
            ],
        }

    def pictures(
        self, trained: TrainedModel, held_out: HeldOut[Any, Any], folder: Path
    ) -> list[tuple[str, str]]:
        if not trained.config["attention"]:
            return []
        # Of middling length: one that shows something, and is not too wide.
        by_length = sorted(held_out.questions, key=len)
        draw_alignment(trained, by_length[len(by_length) // 2], folder / "alignment.png")
        return [("What each token that is written looks back at", "alignment.png")]

    def example_from_json(self, content: Any) -> Pair:
        return Pair(**content)


def _tokenizers(trained: TrainedModel) -> tuple[Tokenizer, Tokenizer]:
    """What reads the source, and what writes the target."""
    return trained.tokenizers["input"], trained.tokenizers["output"]


def _named(table: Table) -> Table:
    """The same with the first row as a header where that says source and target."""
    first = table.rows[0].values
    names = [str(value).strip().lower() for value in first.values()]
    if table.columns[0] != "1" or not {"source", "target"} <= set(names):
        return table
    rows = [
        type(row)(row.file, row.line, dict(zip(names, row.values.values(), strict=True)))
        for row in table.rows[1:]
    ]
    if not rows:
        raise DataInvalid(f"{table.rows[0].file} has a header and no rows; give a file with rows")
    return Table(tuple(names), rows, (*table.notes, "the first line names the columns"))


def _corpus_score(metric: Any, answers: Sequence[str], wanted: Sequence[str]) -> Measurement:
    """With the interval that sacrebleu prints as "μ ± ci"."""
    try:
        found = metric.corpus_score(list(answers), [list(wanted)], n_bootstrap=ROUNDS)
    except TypeError:
        # It cannot average scores of which some are exactly 0, as those of bad models are.
        score = metric.corpus_score(list(answers), [list(wanted)]).score
        return Measurement(score, len(answers), score, score, "no interval")
    low, high = found._mean - found._ci, found._mean + found._ci
    return Measurement(found.score, len(answers), low, high, "bootstrap over rows (sacrebleu)")
