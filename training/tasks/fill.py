"""The word of a blank, from both its sides."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence

from bundle.manifest import FILL
from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.batching import similar_lengths
from training.calibration import MOST_LOGITS, ranked, with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe, RecipeInvalid
from training.data.packages import DATA_FOLDER
from training.data.word_vectors import SIZE, vectors_of
from training.held_out import BEST, BLANK, WORDS, FigureName, HeldOut, Ranked
from training.measurements import Measurement, ratio
from training.models.fill import Fill, FillConfig
from training.readers import CSV, JSONL, LINES, PARQUET, TEXT, TSV, BadRows, DataInvalid, Table
from training.sampled_softmax import noise_logits, sampled_cross_entropy
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import CalibratedTask, DataSettings, Prepared, data_name, option
from training.tasks.texts import MOST_WORDS, count_vocabulary

EVALUATION_BATCH = 32
MOST_TOKENS = 512
MOST_ASKED = 5_000  # held-out blanks that are measured
NO_BLANK = -100  # a word that is no candidate: cross_entropy leaves it out
_LEAST_SEEN = 5  # times that training holds a candidate
_LEAST_WORDS = 3  # of a text with a blank
_FREQUENT_SHARE = 1e-3  # of all tokens: a word of it weighs half in a bag

# tokens (batch, time): begin, words, end; lengths (batch,);
# answers (batch, time): the number of the candidate that stands there, or NO_BLANK
Batch = tuple[Tensor, Tensor, Tensor]


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
    draws: int
    vectors: float
    calibrated: bool = True


@dataclass(frozen=True)
class FillTask:
    """Every blank of a sentence is filled in one pass: no side ever reads its own blank.

    draws: candidates that a batch's are chosen among, by a sampled softmax; 0 for all. The loss
    of such a batch is no likelihood, and nothing of it is smoothed.
    """

    training: Sequence[Sentence]
    validation: Sequence[Sentence]
    seed: int
    batch: int = 32
    label_smoothing: float = 0.1
    draws: int = 0

    def batches(self, epoch: int) -> Sequence[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        return make_batches(self.training, choose, self.batch)

    @cached_property
    def counts(self) -> Counter[int]:
        """How often each candidate stands in the training sentences."""
        counts = Counter(answer for sentence in self.training for answer in sentence.answers)
        del counts[NO_BLANK]
        return counts

    @cached_property
    def _noise_logits(self) -> Tensor:
        return noise_logits(self.counts, max(self.counts) + 1)

    @cached_property
    def _validation_batches(self) -> Sequence[Batch]:
        return make_batches(self.validation, random.Random(0))

    def loss(self, model: Fill, batch: Batch, carry: None) -> tuple[Tensor, None]:
        read, answers = read_at_blanks(model, batch)
        if not self.draws:
            logits = model.output(read)
            return cross_entropy(logits, answers, label_smoothing=self.label_smoothing), None
        chances = self._noise_logits
        noise = torch.multinomial(chances.exp(), self.draws, replacement=True).to(answers.device)
        # A bias is the weight of a feature that is always 1.
        read = torch.cat((read, torch.ones_like(read[:, :1])), dim=1)
        words = torch.cat((model.output.weight, model.output.bias.unsqueeze(1)), dim=1)
        loss = sampled_cross_entropy(read, answers, words, noise, chances.to(answers.device))
        return loss, None

    def validate(self, model: Fill) -> float:
        total, blanks = 0.0, 0
        for batch in self._validation_batches:
            read, answers = read_at_blanks(model, batch)
            total += cross_entropy(model.output(read), answers, reduction="sum").item()
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


@dataclass(frozen=True)
class _Batches(Sequence[Batch]):
    """Each made when it is its turn: of a large text all of them would not fit memory."""

    groups: Sequence[Sequence[Sentence]]

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, place: int) -> Batch: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Batch]: ...
    def __getitem__(self, place: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(place, slice):
            return _Batches(self.groups[place])
        return _stack(self.groups[place])


def make_batches(
    sentences: Sequence[Sentence], choose: random.Random, size: int = EVALUATION_BATCH
) -> Sequence[Batch]:
    return _Batches(similar_lengths(sentences, lambda s: len(s.tokens), size, choose))


def _stack(sentences: Sequence[Sentence]) -> Batch:
    tokens = [torch.tensor(sentence.tokens) for sentence in sentences]
    answers = [torch.tensor(sentence.answers) for sentence in sentences]
    return (
        pad_sequence(tokens, batch_first=True),
        torch.tensor([len(row) for row in tokens]),
        pad_sequence(answers, batch_first=True, padding_value=NO_BLANK),
    )


def read_at_blanks(model: Fill, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the output reads at a batch's blanks alone, (blanks, size), and answers (blanks,)."""
    tokens, lengths, answers = batch
    blanks = answers != NO_BLANK
    return model.read_at(tokens, lengths, blanks), answers[blanks]


@torch.no_grad()
def begin_importance(model: Fill, sentences: Sequence[Sentence]) -> None:
    """A bag's weights begin as a / (a + p) of a token with the share p of all, a being
    _FREQUENT_SHARE: smooth inverse frequencies (Arora, Liang and Ma 2017, section 2).
    """
    weight = model.importance.weight
    tokens = Counter(token for sentence in sentences for token in sentence.tokens)
    counts = torch.tensor([[max(1, tokens[token])] for token in range(len(weight))])
    weight.copy_(math.log(_FREQUENT_SHARE) - (counts / tokens.total()).log())


@torch.no_grad()
def begin_with_vectors(
    model: Fill, words: Sequence[str], candidates: Sequence[str], spread: float, data: Path
) -> None:
    """The embeddings of ``words``, in the vocabulary's order, begin as word vectors of that spread
    (training/data/word_vectors.py), the output's weights as those of length 1.

    Raises RecipeInvalid where the embeddings are shorter than the vectors.
    """
    size = model.config.embedding_size
    if size < SIZE:
        raise RecipeInvalid(f"embedding_size is {size}; word vectors take {SIZE} at least")
    vectors = vectors_of([*words, *candidates], data)
    known = ~vectors[:, 0].isnan()
    of_words, of_candidates = vectors.split((len(words), len(candidates)))
    has, may = known.split((len(words), len(candidates)))
    embedded = model.embedding.weight[1 : 1 + len(words), :SIZE]  # padding has the first row
    embedded[has] = spread * of_words[has]
    model.output.weight[may] = 0.0
    model.output.weight[:, :SIZE][may] = normalize(of_candidates[may])


class FillIn(CalibratedTask[Line]):
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
            part: with_blanks(
                encode_all(tokenizer, candidates, [line.text for line in rows]), limit
            )
            for part, rows in (("train", splits.train), ("validation", splits.validation))
        }
        if not all(encoded.values()):
            raise DataInvalid("no text that validates holds a candidate; give more text")
        training = FillTask(
            encoded["train"], encoded["validation"], seed, settings.batch,
            settings.label_smoothing, settings.draws,
        )  # fmt: skip
        config = recipe.config(
            FillConfig, vocabulary_size=len(vocabulary), candidates=len(candidates)
        )

        def build(config: FillConfig) -> Fill:
            model = Fill(config)
            if config.bag:
                begin_importance(model, encoded["train"])
            if settings.vectors:
                begin_with_vectors(
                    model, vocabulary.symbols, candidates, settings.vectors, DATA_FOLDER
                )
            return model

        few = ", ".join(candidates[:8])
        facts = [
            ("words", f"{len(vocabulary):,} ids, {counts.total():,} words train"),
            ("blanks", f"{len(candidates):,} candidates, words that occur {_LEAST_SEEN} times at "
             f"least but the {settings.most_frequent} most frequent: {few} …"),
        ]  # fmt: skip
        return Prepared(
            recipe, config, build, training, {"input": tokenizer}, {"input_tokens": limit},
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

    @torch.no_grad()
    def validation_logits(
        self, model: Any, examples: Sequence[Line], trained: TrainedModel
    ) -> tuple[Tensor, Tensor]:
        """A blank is a question: (blanks, candidates)."""
        tokenizer, limit = trained.tokenizers["input"], trained.limits["input_tokens"]
        encoded = encode_all(tokenizer, trained.labels, [line.text for line in examples])
        found, left = list[tuple[Tensor, Tensor]](), MOST_LOGITS // len(trained.labels)
        for batch in make_batches(with_blanks(encoded, limit), random.Random(0)):
            if left > 0:
                read, answers = read_at_blanks(model, batch)
                logits = model.output(read)
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
            read, numbers = read_at_blanks(model, batch)
            answered = ranked(model.output(read), trained.labels, WORDS)
            for number, best in zip(numbers.tolist(), answered, strict=True):
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
        frequent = [word for word, _ in every.most_common(WORDS)]
        names = sorted(every)
        totals = np.array([every[word] for word in names], float)
        number = {word: place for place, word in enumerate(names)}

        def counted(side: str, word: str) -> NDArray[np.float64]:
            """Of each name, how often it stands there, and its share of all."""
            beside, counts = sides.get((side, word), Counter()), totals / totals.sum()
            counts[[number[name] for name in beside]] += list(beside.values())
            return counts

        def between(question: str) -> list[str]:
            """The words most often seen after the left neighbour and before the right one."""
            left, right = (split("words", part, lowercase=True) for part in question.split(BLANK))
            before = counted("left", left[-1] if left else "")
            after = counted("right", right[0] if right else "")
            scores = before * after / totals
            best = np.argpartition(-scores, min(WORDS, len(names)) - 1)[:WORDS]
            return [names[place] for place in sorted(best, key=lambda place: -scores[place])]

        return {
            "the most frequent words": [frequent for _ in questions],
            "the words left and right, counted": [between(question) for question in questions],
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


def with_blanks(sentences: Sequence[Sentence], limit: int) -> list[Sentence]:
    """Those that hold a candidate and are within the limit, the markers not counted."""
    return [
        sentence
        for sentence in sentences
        if len(sentence.tokens) - 2 <= limit and any(a != NO_BLANK for a in sentence.answers)
    ]
