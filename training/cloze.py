"""Fills a blank from both sides: two LSTMs over the Bible in Basic English.

    python -m training.cloze [--quick] [--resume] [--seed N] [--recipe FILE]

Split: every tenth sentence is held out, a twentieth of all validates. The candidates are the
1,000 most frequent content words of training; a blank is where a sentence holds one of them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.batching import similar_lengths
from training.checkpoint import Figure, TrainedModel
from training.cli import Run, run_script
from training.data.bible_basic import content_words, load_sentences, split_sentences
from training.data.packages import BIBLE_BASIC
from training.held_out import BLANK, EvaluationContext, HeldOut
from training.loop import FitSettings, History
from training.measurements import Measurement, ratio
from training.models import config_to_json
from training.models.fill import Fill, FillConfig

CANDIDATES = 1_000
QUICK_SENTENCES = 4_000
EVERY_WORD = "every-word"  # the stage in which all words are candidates
INPUT_LIMIT = 512
NO_BLANK = -100  # a word that is no candidate: cross_entropy leaves it out

# tokens (batch, time): begin, words, end; lengths (batch,);
# answers (batch, time): the number of the candidate that stands there, or NO_BLANK
Batch = tuple[Tensor, Tensor, Tensor]

# tokens (batch, time), lengths (batch,) → logits (batch, time, candidates)
Filler = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sentence:
    """tokens: begin, words, end. answers: of each, its number as a candidate, or NO_BLANK."""

    tokens: list[int]
    answers: list[int]


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
    sentences: Sequence[Sentence], choose: random.Random, size: int = 32
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


@dataclass(frozen=True)
class ClozeSettings:
    """batch: sentences. vocabulary: ids at most; rarer words train the catch-all.
    label_smoothing: share of an answer's probability that is spread over all candidates.
    every_word_epochs, every_word_rate: of a stage before, in which every word of the vocabulary
    is a candidate and so four times as many words of a sentence are blanks; 0 epochs for none.
    """

    batch: int
    vocabulary: int
    label_smoothing: float
    every_word_epochs: int
    every_word_rate: float


@dataclass(frozen=True)
class ClozeTask:
    """Every blank of a sentence is filled in one pass: no side ever reads its own blank.

    stage_before: the same sentences with more candidates, of which these are the first.
    """

    tokenizer: Tokenizer
    candidates: tuple[str, ...]
    training: Sequence[Sentence]
    validation: Sequence[Sentence]
    seed: int
    batch: int = 32
    label_smoothing: float = 0.1
    stage_before: ClozeTask | None = None

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


def at_blanks(fill: Filler, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (blanks, candidates) and answers (blanks,) of a batch's blanks alone."""
    tokens, lengths, answers = batch
    blanks = answers != NO_BLANK
    return fill(tokens, lengths)[blanks], answers[blanks]


@torch.no_grad()
def ranks(fill: Filler, sentences: Sequence[Sentence]) -> list[int]:
    """For each blank, how many candidates the model likes better than its word."""
    found: list[int] = []
    for batch in make_batches(sentences, random.Random(0)):
        logits, answers = at_blanks(fill, batch)
        own = logits.gather(1, answers.unsqueeze(1))
        found.extend((logits > own).sum(dim=1).tolist())
    return found


def figures(run: Run, found: Sequence[int]) -> tuple[Figure, ...]:
    split = f"content words among {CANDIDATES:,} candidates, in every tenth sentence"
    if run.quick:
        split += " of the quick profile's"
    return tuple(
        Figure(
            f"top-{top} accuracy", 100 * sum(rank < top for rank in found) / len(found), "%",
            split, len(found), run.command,
        )
        for top in (1, 5)
    )  # fmt: skip


def held_out(context: EvaluationContext) -> HeldOut[str, Sequence[str]]:
    candidates = frozenset(context.labels)
    sentences = split_sentences(load_sentences(context.data))["held-out"]
    blanks = [
        (place, " ".join([*words[:number], BLANK, *words[number + 1 :]]), word)
        for place, text in enumerate(sentences)
        for words in [split("words", text, lowercase=True)]
        for number, word in enumerate(words)
        if word in candidates
    ]

    def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
        measured = []
        for top in (1, 5):
            right, asked = np.zeros(len(sentences)), np.zeros(len(sentences))
            for (place, _, word), words in zip(blanks, answers, strict=True):
                right[place] += word in words[:top]
                asked[place] += 1
            measured.append(ratio(right, asked, len(blanks), "sentences", scale=100))
        return measured

    return HeldOut([text for _, text, _ in blanks], measure)


def load_task(run: Run) -> tuple[ClozeTask, list[Sentence]]:
    """What is trained on and validated with, and the held-out sentences.

    The cap leaves out words that occur once or twice: they are what trains the catch-all.
    """
    sentences = load_sentences(run.data)
    splits = split_sentences(sentences[:QUICK_SENTENCES] if run.quick else sentences)
    options = run.recipe.task_settings(ClozeSettings)
    words = (word for text in splits["train"] for word in split("words", text, lowercase=True))
    vocabulary = Vocabulary.count(words, options.vocabulary, has_markers=True)
    tokenizer = Tokenizer("words", vocabulary, lowercase=True)
    candidates = content_words(splits["train"], CANDIDATES)

    def task_of(candidates: tuple[str, ...], before: ClozeTask | None) -> ClozeTask:
        training, validation = (
            encode_all(tokenizer, candidates, splits[part]) for part in ("train", "validation")
        )
        return ClozeTask(
            tokenizer, candidates, training, validation, run.seed, options.batch,
            options.label_smoothing, before,
        )  # fmt: skip

    every_word = tuple(dict.fromkeys((*candidates, *vocabulary.symbols)))
    before = task_of(every_word, None) if options.every_word_epochs else None
    held_out = encode_all(tokenizer, candidates, splits["held-out"])
    return task_of(candidates, before), held_out


def narrowed(model: Fill, config: FillConfig) -> Fill:
    """A model of ``config`` with the weights of ``model``, which knows more candidates."""
    weights = model.state_dict()
    for name in ("output.weight", "output.bias"):
        weights[name] = weights[name][: config.candidates]
    narrow = Fill(config)
    narrow.load_state_dict(weights)
    return narrow


def fit(run: Run, task: ClozeTask, config: FillConfig) -> tuple[Fill, History]:
    """Both stages, or the second alone where the task has none before."""
    settings = run.recipe.fit_settings(run.seed)
    before = task.stage_before
    if before is None:
        return run.fit(Fill, config, task, settings)
    options = run.recipe.task_settings(ClozeSettings)
    first = FitSettings(run.seed, options.every_word_epochs, options.every_word_rate)
    wide = replace(config, candidates=len(before.candidates))
    model, history = run.fit(Fill, wide, before, first, stage=EVERY_WORD)

    def build(config: FillConfig) -> Fill:
        return narrowed(model, config)

    return run.fit(build, config, task, settings, after=history)


def train(run: Run) -> None:
    task, held_out = load_task(run)
    config = run.recipe.config(
        FillConfig,
        vocabulary_size=len(task.tokenizer.vocabulary),
        candidates=len(task.candidates),
    )
    model, history = fit(run, task, config)
    trained = TrainedModel(
        name=run.model,
        description="Fills a blank in an English sentence from the words on both its sides.",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers={"input": task.tokenizer},
        labels=task.candidates,
        limits={"input_tokens": INPUT_LIMIT},
        figures=figures(run, ranks(model.everywhere, held_out)),
        data=(BIBLE_BASIC.describe(),),
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("cloze", train))
