"""Parts of speech on the Brown corpus, for the tagger of whole sentences and the online one.

Split: every tenth sentence is held out, a twentieth of all validates. The corpus writes
``Mr.`` and ``$600`` as one word, ordinary text does not say so: a tagger reads the tokens of
ordinary text, each with its word's tag, and a word counts as right when all its tokens are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.bundled import PackageData
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.brown import Tagged, load_sentences, split_sentences
from training.data.packages import BROWN
from training.held_out import Confusion, FigureName, HeldOut
from training.measurements import Measurement, ratio
from training.models.tagger import Tagger, TaggerConfig
from training.splits import Splits, splits_of
from training.tasks.base import Prepared
from training.tasks.tag import NO_TAG, Tag, TagTask, make_tokenizer
from training.word_dropout import WordDropout

INPUT_LIMIT = 512


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


class PartsOfSpeech(Tag):
    packages = (BROWN,)

    def read(self, recipe: Recipe) -> tuple[Splits[Any], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        sentences = load_sentences(settings.path)
        name = "every tenth sentence of the Brown corpus"
        if settings.most:
            sentences = sentences[: settings.most]
            name = f"every tenth of {settings.most:,} sentences of the Brown corpus"
        return splits_of(split_sentences(sentences), name), []

    def prepare(self, recipe: Recipe, splits: Splits[Any], seed: int) -> Prepared:
        settings = recipe.task_settings(TaggingSettings)
        words = (word for sentence in splits.train for word, _ in sentence)
        counts = Counter(token for word in words for token in split("words", word))
        tokenizer = make_tokenizer(counts, settings.words, settings.endings)
        seen = [*splits.train, *splits.validation]
        labels = Vocabulary.count(tag for sentence in seen for _, tag in sentence).symbols
        numbers = {tag: number for number, tag in enumerate(labels)}
        train, validation = (
            [encode(tokenizer, numbers, sentence) for sentence in part]
            for part in (splits.train, splits.validation)
        )
        training = TagTask(
            train, validation, seed, settings.batch,
            WordDropout(tokenizer, counts, settings.word_dropout), settings.label_smoothing,
            settings.label_dropout,
        )  # fmt: skip
        config = recipe.config(
            TaggerConfig, vocabulary_size=len(tokenizer.vocabulary), labels=len(labels)
        )
        return Prepared(
            recipe, config, Tagger, training, {"input": tokenizer},
            {"input_tokens": INPUT_LIMIT}, "", [], labels,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Any], trained: TrainedModel
    ) -> HeldOut[list[str], Sequence[str]]:
        """examples: sentences as the corpus has them, Tagged.

        A word of the corpus is right when all tokens it is made of are.

        A word that is not counts as taken for the label of its last wrong token.
        """
        vocabulary = trained.tokenizers["input"].vocabulary
        tokens = [
            [
                (token, number)
                for number, (word, _) in enumerate(sentence)
                for token in split("words", word)
            ]
            for sentence in examples
        ]

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            words, right, unknown, unknown_right = (np.zeros(len(examples)) for _ in range(4))
            for place, (sentence, row, said) in enumerate(
                zip(examples, tokens, answers, strict=True)
            ):
                given = _taken_for(sentence, row, said)
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
            for sentence, row, said in zip(examples, tokens, answers, strict=True):
                given = _taken_for(sentence, row, said)
                counts.update(zip((tag for _, tag in sentence), given, strict=True))
            return counts

        lacks = "words the vocabulary lacks, of every tenth sentence of the Brown corpus"
        figures = [
            FigureName("accuracy", "%"), FigureName("accuracy on unknown words", "%", lacks),
        ]  # fmt: skip
        questions = [[token for token, _ in row] for row in tokens]
        return HeldOut(questions, measure, confusion, figures)

    def floors(
        self, splits: Splits[Any], trained: TrainedModel, questions: Sequence[Sequence[str]]
    ) -> dict[str, list[Sequence[str]]]:
        counts: dict[str, Counter[str]] = {}
        for sentence in splits.train:
            for word, tag in sentence:
                for token in split("words", word):
                    counts.setdefault(token, Counter())[tag] += 1
        best = {token: max(found, key=found.__getitem__) for token, found in counts.items()}
        unknown = trained.labels[0]
        return {
            "each word's most frequent tag": [
                [best.get(token, unknown) for token in tokens] for tokens in questions
            ]
        }


def _taken_for(sentence: Tagged, row: Sequence[tuple[str, int]], said: Sequence[str]) -> list[str]:
    """The tag that each word of a sentence was given."""
    tags = [tag for _, tag in sentence]
    given = tags.copy()
    for (_, number), label in zip(row, said, strict=True):
        if label != tags[number]:
            given[number] = label
    return given


TASK = PartsOfSpeech()
