"""The word of a blank, from both its sides."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import FILL
from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.batching import similar_lengths
from training.calibration import MOST_LOGITS, calibrate, ranked, with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.held_out import BEST, BLANK, FigureName, HeldOut, Ranked
from training.measurements import Measurement, ratio
from training.models.fill import Fill, FillConfig
from training.readers import CSV, JSONL, LINES, PARQUET, TEXT, TSV, BadRows, DataInvalid, Table
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import DataSettings, Prepared, Task, data_name, option
from training.tasks.texts import MOST_WORDS, count_vocabulary

EVALUATION_BATCH = 32
MOST_TOKENS = 512
MOST_ASKED = 5_000  # held-out blanks that are measured
NO_BLANK = -100  # a word that is no candidate: cross_entropy leaves it out
_LEAST_SEEN = 5  # times that training holds a candidate
_LEAST_WORDS = 3  # of a text with a blank

# tokens (batch, time): begin, words, end; lengths (batch,);
# answers (batch, time): the number of the candidate that stands there, or NO_BLANK
Batch = tuple[Tensor, Tensor, Tensor]

# tokens (batch, time), lengths (batch,) → logits (batch, time, candidates)
Filler = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Line:
    text: str


@dataclass(frozen=True)
class Sentence:
    """tokens: begin, words, end. answers: of each, its number as a candidate, or NO_BLANK."""

    tokens: list[int]
    answers: list[int]


@dataclass(frozen=True)
class FillData(DataSettings):
    text_column: str = option("text", "column of the texts, of files with columns")


@dataclass(frozen=True)
class FillSettings:
    """The table ``[task]``, as recipes/tasks/fill.toml explains it."""

    batch: int
    vocabulary: int
    candidates: int
    most_frequent: int
    input_limit: int
    label_smoothing: float
    calibrated: bool = True


@dataclass(frozen=True)
class FillTask:
    """Every blank of a sentence is filled in one pass: no side ever reads its own blank."""

    training: Sequence[Sentence]
    validation: Sequence[Sentence]
    seed: int
    batch: int = 32
    label_smoothing: float = 0.1

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        return make_batches(self.training, choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.validation, random.Random(0))

    def loss(self, model: Fill, batch: Batch, carry: None) -> tuple[Tensor, None]:
        logits, answers = at_blanks(model.everywhere, batch)
        return cross_entropy(logits, answers, label_smoothing=self.label_smoothing), None

    def validate(self, model: Fill) -> float:
        total, blanks = 0.0, 0
        for batch in self._validation_batches:
            logits, answers = at_blanks(model.everywhere, batch)
            total += cross_entropy(logits, answers, reduction="sum").item()
            blanks += len(answers)
        return total / blanks


def encode(tokenizer: Tokenizer, numbers: Mapping[str, int], text: str) -> Sentence:
    """numbers: of each candidate."""
    vocabulary = tokenizer.vocabulary
    words = tokenizer.split(text)
    answers = [numbers.get(word, NO_BLANK) for word in words]
    return Sentence(
        [vocabulary.begin_id, *map(vocabulary.id_of, words), vocabulary.end_id],
        [NO_BLANK, *answers, NO_BLANK],
    )


def encode_all(
    tokenizer: Tokenizer, candidates: Sequence[str], texts: Sequence[str]
) -> list[Sentence]:
    numbers = {word: number for number, word in enumerate(candidates)}
    return [encode(tokenizer, numbers, text) for text in texts]


def make_batches(
    sentences: Sequence[Sentence], choose: random.Random, size: int = EVALUATION_BATCH
) -> list[Batch]:
    grouped = similar_lengths(sentences, lambda s: len(s.tokens), size, choose)
    return [_stack(batch) for batch in grouped]


def _stack(sentences: Sequence[Sentence]) -> Batch:
    tokens = [torch.tensor(sentence.tokens) for sentence in sentences]
    answers = [torch.tensor(sentence.answers) for sentence in sentences]
    return (
        pad_sequence(tokens, batch_first=True),
        torch.tensor([len(row) for row in tokens]),
        pad_sequence(answers, batch_first=True, padding_value=NO_BLANK),
    )


def at_blanks(fill: Filler, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (blanks, candidates) and answers (blanks,) of a batch's blanks alone."""
    tokens, lengths, answers = batch
    blanks = answers != NO_BLANK
    return fill(tokens, lengths)[blanks], answers[blanks]


class FillIn(Task[Line]):
    name = FILL
    help = "the word of a blank: lines of text, or a column of CSV, TSV, JSONL or Parquet"
    data = FillData
    formats = (LINES, TEXT, CSV, TSV, JSONL, PARQUET)

    def examples(
        self, table: Table, settings: FillData, bad_rows: BadRows
    ) -> tuple[list[Line], list[tuple[str, str]]]:
        column = table.column(settings.text_column, settings.files, "--text-column")
        found = []
        for row in table.rows:
            try:
                value = row.values[column] if table.columns == ("text",) else row.text(column)
                lines = value.split("\n") if isinstance(value, str) else [row.text(column)]
                found += [Line(line.strip()) for line in lines if line.strip()]
            except DataInvalid as problem:
                bad_rows.report(problem)
        found = [line for line in found if len(split("words", line.text)) >= _LEAST_WORDS]
        return found, [("texts", f"a line each, {_LEAST_WORDS} words at least")]

    def key(self, example: Line) -> str:
        return example.text

    def prepare(self, recipe: Recipe, splits: Splits[Line], seed: int) -> Prepared:
        train = [line.text for line in splits.train]
        counts = Counter(word for text in train for word in split("words", text, lowercase=True))
        lengths = [len(split("words", line.text)) for line in splits.every]
        hidden = min(192, hidden_size(counts.total()))
        recipe = recipe.chosen(
            {
                "task.vocabulary": MOST_WORDS,
                "task.candidates": 1_000,
                "task.most_frequent": min(50, len(counts) // 20),
                "task.input_limit": min(MOST_TOKENS, 2 * max(lengths)),
                "task.batch": min(32, max(4, len(train) // 60)),
                "model.recurrent.hidden_size": hidden,
                "model.embedding_size": min(128, hidden),
            }
        )
        settings = recipe.task_settings(FillSettings)
        recipe = recipe.chosen({"fit.epochs": epochs_of(len(train) // settings.batch)})
        vocabulary = count_vocabulary(counts.elements(), settings.vocabulary, has_markers=True)
        tokenizer = Tokenizer("words", vocabulary, lowercase=True)
        candidates = _candidates(counts, vocabulary, settings)
        limit = settings.input_limit
        encoded = {
            part: _with_blanks(
                encode_all(tokenizer, candidates, [line.text for line in rows]), limit
            )
            for part, rows in (("train", splits.train), ("validation", splits.validation))
        }
        if not all(encoded.values()):
            raise DataInvalid("no text that validates holds a candidate; give more text")
        training = FillTask(
            encoded["train"], encoded["validation"], seed, settings.batch,
            settings.label_smoothing,
        )  # fmt: skip
        config = recipe.config(
            FillConfig, vocabulary_size=len(vocabulary), candidates=len(candidates)
        )
        few = ", ".join(candidates[:8])
        facts = [
            ("words", f"{len(vocabulary):,} ids, {counts.total():,} words train"),
            ("blanks", f"{len(candidates):,} candidates, words that occur {_LEAST_SEEN} times at "
             f"least but the {settings.most_frequent} most frequent: {few} …"),
        ]  # fmt: skip
        return Prepared(
            recipe, config, Fill, training, {"input": tokenizer}, {"input_tokens": limit},
            f"Fills a blank with one of {len(candidates):,} words, from the words on both its "
            f"sides, as {data_name(recipe)} has them.",
            facts, candidates,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Line], trained: TrainedModel
    ) -> HeldOut[str, Sequence[str]]:
        """A question a blank: the words of a text, one of them left out."""
        candidates, limit = frozenset(trained.labels), trained.limits["input_tokens"]
        blanks: list[tuple[int, str, str]] = []
        for place, line in enumerate(examples):
            words = split("words", line.text, lowercase=True)
            if len(words) > limit or len(blanks) > MOST_ASKED:
                continue
            for number, word in enumerate(words):
                if word in candidates:
                    asked = " ".join([*words[:number], BLANK, *words[number + 1 :]])
                    blanks.append((place, asked, word))
        if not blanks:
            raise DataInvalid("no held-out text holds a candidate; give more text")

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            measured = []
            for top in (1, BEST):
                right, asked = np.zeros(len(examples)), np.zeros(len(examples))
                for (place, _, word), words in zip(blanks, answers, strict=True):
                    right[place] += word in words[:top]
                    asked[place] += 1
                measured.append(ratio(right, asked, len(blanks), "texts", scale=100))
            return measured

        figures = [FigureName("right at first", "%"), FigureName(f"right among {BEST}", "%")]
        questions, truth = [text for _, text, _ in blanks], [word for _, _, word in blanks]
        return with_calibration(HeldOut(questions, measure, figures=figures), truth)

    def adjust(
        self, model: Any, recipe: Recipe, splits: Splits[Line], trained: TrainedModel
    ) -> TrainedModel:
        if not recipe.task.get("calibrated", True):
            return trained
        logits, answers = self.validation_logits(model, splits.validation, trained)
        return trained.with_facts(calibrate(model, logits, answers))

    @torch.no_grad()
    def validation_logits(
        self, model: Any, examples: Sequence[Line], trained: TrainedModel
    ) -> tuple[Tensor, Tensor]:
        """(blanks, candidates) and the numbers of the right words (blanks,), of some blanks of
        ``examples``."""
        tokenizer, limit = trained.tokenizers["input"], trained.limits["input_tokens"]
        encoded = encode_all(tokenizer, trained.labels, [line.text for line in examples])
        found, left = list[tuple[Tensor, Tensor]](), MOST_LOGITS // len(trained.labels)
        for batch in make_batches(_with_blanks(encoded, limit), random.Random(0)):
            if left > 0:
                logits, answers = at_blanks(model.everywhere, batch)
                found.append((logits[:left], answers[:left]))
                left -= len(answers)
        every_logits, every_answer = zip(*found, strict=True)
        return torch.cat(every_logits), torch.cat(every_answer)

    @torch.no_grad()
    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[str],
        beam: int | None = None,
    ) -> list[Ranked]:
        tokenizer = trained.tokenizers["input"]
        rows = []
        for number, question in enumerate(questions):
            left, right = question.split(BLANK)
            place = 1 + len(tokenizer.split(left))
            sentence = encode(tokenizer, {}, f"{left} {right}")
            tokens = sentence.tokens
            # What stands at the blank is read by neither side.
            tokens = [*tokens[:place], tokenizer.vocabulary.unknown_id, *tokens[place:]]
            answers = [NO_BLANK] * len(tokens)
            answers[place] = number
            rows.append(Sentence(tokens, answers))
        found = [Ranked((), math.nan)] * len(questions)
        for batch in make_batches(rows, random.Random(0)):
            logits, numbers = at_blanks(model.everywhere, batch)
            for number, best in zip(numbers.tolist(), ranked(logits, trained.labels), strict=True):
                found[number] = best
        return found

    def floors(
        self, splits: Splits[Line], trained: TrainedModel, questions: Sequence[str]
    ) -> dict[str, list[Sequence[str]]]:
        candidates = frozenset(trained.labels)
        every: Counter[str] = Counter()
        sides: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for line in splits.train:
            words = ["", *split("words", line.text, lowercase=True), ""]
            for place in range(1, len(words) - 1):
                if words[place] in candidates:
                    every[words[place]] += 1
                    sides["left", words[place - 1]][words[place]] += 1
                    sides["right", words[place + 1]][words[place]] += 1
        frequent = [word for word, _ in every.most_common(BEST)]
        return {
            "the most frequent words": [frequent for _ in questions],
            "the words left and right, counted": [
                _between(question, every, sides) for question in questions
            ],
        }

    def example_from_json(self, content: Any) -> Line:
        return Line(**content)

    def shown(self, question: str, answer: Sequence[str]) -> tuple[str, str]:
        return question, " ".join(answer)


def _candidates(
    counts: Counter[str], vocabulary: Vocabulary, settings: FillSettings
) -> tuple[str, ...]:
    """Raises DataInvalid where there are fewer than two."""
    order = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in order if word[0].isalnum() and word in vocabulary]
    kept = [word for word in words[settings.most_frequent :] if counts[word] >= _LEAST_SEEN]
    if len(kept) < 2:
        raise DataInvalid(
            f"{len(kept)} words occur {_LEAST_SEEN} times at least beside the "
            f"{settings.most_frequent} most frequent; give more text"
        )
    return tuple(kept[: settings.candidates])


def _with_blanks(sentences: Sequence[Sentence], limit: int) -> list[Sentence]:
    """Those that hold a candidate and are within the limit, the markers not counted."""
    return [
        sentence
        for sentence in sentences
        if len(sentence.tokens) - 2 <= limit and any(a != NO_BLANK for a in sentence.answers)
    ]


def _between(
    question: str, every: Counter[str], sides: Mapping[tuple[str, str], Counter[str]]
) -> list[str]:
    """The words most often seen after the left neighbour and before the right one."""
    left, right = (split("words", part, lowercase=True) for part in question.split(BLANK))
    before = sides.get(("left", left[-1] if left else ""), Counter())
    after = sides.get(("right", right[0] if right else ""), Counter())
    total = every.total()
    scores = {
        word: (before[word] + count / total) * (after[word] + count / total) / count
        for word, count in every.items()
    }
    return sorted(scores, key=lambda word: (-scores[word], word))[:BEST]
