"""Parts of speech on the Brown corpus: what every tagger here is trained and evaluated with.

Split: every tenth sentence is held out, a twentieth of all validates. The corpus writes
``Mr.`` and ``$600`` as one word, ordinary text does not say so: a tagger reads the tokens of
ordinary text, each with its word's tag, and a word counts as right when all its tokens are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, endings, split
from bundle.vocabulary import Vocabulary
from training.batching import similar_lengths
from training.checkpoint import Figure, TrainedModel
from training.cli import Run
from training.data.brown import Tagged, load_sentences, split_sentences
from training.data.packages import BROWN
from training.held_out import Confusion, EvaluationContext, HeldOut
from training.measurements import Measurement, ratio
from training.models import config_to_json
from training.models.tagger import NO_LABEL, Tagger, TaggerConfig
from training.word_dropout import WordDropout

EVALUATION_BATCH = 256
INPUT_LIMIT = 512
QUICK_SENTENCES = 15_000
NOT_SCORED = -100  # of a label: cross_entropy leaves it out
RARE = 10  # a word as rare as that says what the endings of unknown words mean
NO_TAG = -1  # a tag that no training sentence has; no prediction is ever right

# tokens (batch, time), lengths (batch,), labels (batch, time), NOT_SCORED after a row's end
Batch = tuple[Tensor, Tensor, Tensor]

# tokens (batch, time), lengths (batch,) → logits (batch, time, labels)
Reader = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TaggingSettings:
    """batch: sentences. words: of the vocabulary at most, none that occurs only once.
    endings: of rare words, at most, that stand for words which the vocabulary lacks; 0 for one
    catch-all. word_dropout: the strength of training.word_dropout.
    label_smoothing: share of a tag's probability that is spread over all.
    label_dropout: share of the labels that are fed back which training hides.
    """

    batch: int
    words: int
    endings: int
    word_dropout: float
    label_smoothing: float
    label_dropout: float


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence as the tokenizer reads it.

    tokens, labels: of each token, its id and the number of its word's tag.
    words: the number of the corpus's word that each token is of.
    """

    tokens: list[int]
    labels: list[int]
    words: list[int]


def encode(tokenizer: Tokenizer, numbers: Mapping[str, int], sentence: Tagged) -> TaggedSentence:
    """numbers: of each tag."""
    rows = [
        (token, numbers.get(tag, NO_TAG), number)
        for number, (word, tag) in enumerate(sentence)
        for token in tokenizer.encode(word).ids
    ]
    tokens, labels, words = zip(*rows, strict=True)
    return TaggedSentence(list(tokens), list(labels), list(words))


def make_batches(
    sentences: Sequence[TaggedSentence], choose: random.Random, size: int = EVALUATION_BATCH
) -> list[Batch]:
    grouped = similar_lengths(sentences, lambda s: len(s.tokens), size, choose)
    return [stack(batch) for batch in grouped]


def stack(sentences: Sequence[TaggedSentence]) -> Batch:
    tokens = [torch.tensor(sentence.tokens) for sentence in sentences]
    labels = [torch.tensor(sentence.labels) for sentence in sentences]
    return (
        pad_sequence(tokens, batch_first=True),
        torch.tensor([len(row) for row in tokens]),
        pad_sequence(labels, batch_first=True, padding_value=NOT_SCORED),
    )


def previous_labels(labels: Tensor) -> Tensor:
    """labels (batch, time) → 1 + the label before each token, NO_LABEL at the start"""
    before = torch.full_like(labels, NO_LABEL)
    before[:, 1:] = (labels[:, :-1] + 1).clamp(min=NO_LABEL)
    return before


@dataclass(frozen=True)
class TaggingTask:
    """Teacher forcing where the last label is fed back; validation runs free."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    training: Sequence[TaggedSentence]
    validation: Sequence[TaggedSentence]
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


@dataclass(frozen=True)
class WordsRight:
    """How many words of the corpus were tagged right, and how many of the unknown ones.

    unknown: words with a token that the vocabulary lacks.
    """

    words: int
    right: int
    unknown: int
    unknown_right: int


@torch.no_grad()
def count_right(
    read: Reader, sentences: Sequence[TaggedSentence], stand_ins: Collection[int]
) -> WordsRight:
    """Tags each sentence and compares word by word.

    stand_ins: the ids that words are read as which the vocabulary lacks.
    """
    verdicts: list[tuple[bool, bool]] = []
    for batch in similar_lengths(
        sentences, lambda s: len(s.tokens), EVALUATION_BATCH, random.Random(0)
    ):
        tokens, lengths, _ = stack(batch)
        for sentence, said in zip(batch, read(tokens, lengths).argmax(2).tolist(), strict=True):
            verdicts.extend(_verdicts(sentence, said, stand_ins))
    return WordsRight(
        words=len(verdicts),
        right=sum(right for right, _ in verdicts),
        unknown=sum(unknown for _, unknown in verdicts),
        unknown_right=sum(right and unknown for right, unknown in verdicts),
    )


def _verdicts(
    sentence: TaggedSentence, said: list[int], stand_ins: Collection[int]
) -> list[tuple[bool, bool]]:
    """(is right, is unknown) of each word."""
    words = [(True, False)] * (sentence.words[-1] + 1)
    # What is said of the padding after a sentence belongs to no word.
    rows = zip(sentence.words, sentence.tokens, sentence.labels, said, strict=False)
    for number, token, label, guess in rows:
        right, unknown = words[number]
        words[number] = (right and guess == label, unknown or token in stand_ins)
    return words


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
    return Tokenizer("endings", Vocabulary((*kept, *found.symbols[:most_endings])))


def load_task(run: Run) -> tuple[TaggingTask, list[TaggedSentence]]:
    """What is trained on and validated with, and the held-out sentences."""
    options = run.recipe.task_settings(TaggingSettings)
    sentences = load_sentences(run.data)
    splits = split_sentences(sentences[:QUICK_SENTENCES] if run.quick else sentences)
    words = (word for sentence in splits["train"] for word, _ in sentence)
    counts = Counter(token for word in words for token in split("words", word))
    tokenizer = make_tokenizer(counts, options.words, options.endings)
    seen = [*splits["train"], *splits["validation"]]
    labels = Vocabulary.count(tag for sentence in seen for _, tag in sentence).symbols
    numbers = {tag: number for number, tag in enumerate(labels)}
    encoded = {
        name: [encode(tokenizer, numbers, sentence) for sentence in part]
        for name, part in splits.items()
    }
    task = TaggingTask(
        tokenizer, labels, encoded["train"], encoded["validation"], run.seed, options.batch,
        WordDropout(tokenizer, counts, options.word_dropout), options.label_smoothing,
        options.label_dropout,
    )  # fmt: skip
    return task, encoded["held-out"]


def figures(run: Run, right: WordsRight) -> tuple[Figure, ...]:
    split = "every tenth sentence of the Brown corpus"
    if run.quick:
        split = f"every tenth of {QUICK_SENTENCES:,} sentences of the Brown corpus"
    unknown = f"words the vocabulary lacks, of {split}"
    return (
        Figure("accuracy", 100 * right.right / right.words, "%", split, right.words, run.command),
        Figure(
            "accuracy on unknown words", 100 * right.unknown_right / max(1, right.unknown), "%",
            unknown, right.unknown, run.command,
        ),
    )  # fmt: skip


def held_out(context: EvaluationContext) -> HeldOut[list[str], Sequence[str]]:
    """A word of the corpus is right when all tokens it is made of are.

    A word that is not counts as taken for the label of its last wrong token.
    """
    vocabulary = context.tokenizers["input"].vocabulary
    sentences = split_sentences(load_sentences(context.data))["held-out"]
    tokens = [
        [(token, number) for number, (word, _) in enumerate(s) for token in split("words", word)]
        for s in sentences
    ]

    def taken_for(
        sentence: Tagged, row: Sequence[tuple[str, int]], said: Sequence[str]
    ) -> list[str]:
        """The tag that each word of a sentence was given."""
        tags = [tag for _, tag in sentence]
        given = tags.copy()
        for (_, number), label in zip(row, said, strict=True):
            if label != tags[number]:
                given[number] = label
        return given

    def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
        words, right, unknown, unknown_right = (np.zeros(len(sentences)) for _ in range(4))
        for place, (sentence, row, said) in enumerate(zip(sentences, tokens, answers, strict=True)):
            given = taken_for(sentence, row, said)
            is_right = [tag == own for (_, tag), own in zip(sentence, given, strict=True)]
            lacking = {number for token, number in row if token not in vocabulary}
            words[place], right[place] = len(sentence), sum(is_right)
            unknown[place] = len(lacking)
            unknown_right[place] = sum(is_right[number] for number in lacking)
        return [
            ratio(over, under, int(under.sum()), "sentences", scale=100)
            for over, under in ((right, words), (unknown_right, unknown))
        ]

    def confusion(answers: Sequence[Sequence[str]]) -> Confusion:
        counts = Confusion()
        for sentence, row, said in zip(sentences, tokens, answers, strict=True):
            given = taken_for(sentence, row, said)
            counts.update(zip((tag for _, tag in sentence), given, strict=True))
        return counts

    return HeldOut([[token for token, _ in row] for row in tokens], measure, confusion)


def train_tagger(run: Run, description: str) -> None:
    """Trains the tagger of the run's recipe, and measures it by what it says alone."""
    task, held_out = load_task(run)
    config = run.recipe.config(
        TaggerConfig, vocabulary_size=len(task.tokenizer.vocabulary), labels=len(task.labels)
    )
    settings = run.recipe.fit_settings(run.seed)
    model, history = run.fit(Tagger, config, task, settings)
    right = count_right(model.tag, held_out, task.tokenizer.stand_ins)
    trained = TrainedModel(
        name=run.model,
        description=description,
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers={"input": task.tokenizer},
        labels=task.labels,
        limits={"input_tokens": INPUT_LIMIT},
        figures=figures(run, right),
        data=(BROWN.describe(),),
        training=run.facts(model, history),
    )
    run.finish(trained, history)
