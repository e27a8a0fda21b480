"""Blanks of the Bible in Basic English, filled from both sides.

Split: every tenth sentence is held out, a twentieth of all validates. The candidates are the
1,000 most frequent content words of training; a blank is where a sentence holds one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.bundled import PackageData
from training.calibration import with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.bible_basic import content_words, load_sentences, split_sentences
from training.data.packages import BIBLE_BASIC
from training.held_out import BLANK, FigureName, HeldOut
from training.loop import FitSettings, History
from training.measurements import Measurement, ratio
from training.models.fill import Fill, FillConfig
from training.run import Run
from training.splits import Splits, splits_of
from training.tasks.base import Prepared
from training.tasks.fill import FillIn, FillTask, Line, encode_all

CANDIDATES = 1_000
EVERY_WORD = "every-word"  # the stage in which all words are candidates
INPUT_LIMIT = 512


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


class Cloze(FillIn):
    packages = (BIBLE_BASIC,)

    def read(self, recipe: Recipe) -> tuple[Splits[Line], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        sentences = load_sentences(settings.path)
        name = f"content words among {CANDIDATES:,} candidates, in every tenth sentence"
        if settings.most:
            sentences, name = sentences[: settings.most], f"{name} of the quick profile's"
        splits = split_sentences(sentences)
        parts = {part: [Line(text) for text in texts] for part, texts in splits.items()}
        return splits_of(parts, name), []

    def prepare(self, recipe: Recipe, splits: Splits[Line], seed: int) -> Prepared:
        """The cap leaves out words that occur once or twice: they train the catch-all."""
        settings = recipe.task_settings(ClozeSettings)
        texts = [line.text for line in splits.train]
        words = (word for text in texts for word in split("words", text, lowercase=True))
        vocabulary = Vocabulary.count(words, settings.vocabulary, has_markers=True)
        tokenizer = Tokenizer("words", vocabulary, lowercase=True)
        candidates = content_words(texts, CANDIDATES)

        def task_of(candidates: Sequence[str]) -> FillTask:
            train, validation = (
                encode_all(tokenizer, candidates, [line.text for line in part])
                for part in (splits.train, splits.validation)
            )
            return FillTask(train, validation, seed, settings.batch, settings.label_smoothing)

        training = task_of(candidates)
        config = recipe.config(
            FillConfig, vocabulary_size=len(vocabulary), candidates=len(candidates)
        )

        def fit(run: Run, last: FitSettings) -> tuple[Fill, History]:
            every_word = tuple(dict.fromkeys((*candidates, *vocabulary.symbols)))
            first = FitSettings(seed, settings.every_word_epochs, settings.every_word_rate)
            wide = replace(config, candidates=len(every_word))
            model, history = run.fit(Fill, wide, task_of(every_word), first, stage=EVERY_WORD)
            return run.fit(lambda c: narrowed(model, c), config, training, last, after=history)

        return Prepared(
            recipe, config, Fill, training, {"input": tokenizer},
            {"input_tokens": INPUT_LIMIT}, "", [], candidates,
            fit=fit if settings.every_word_epochs else None,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Line], trained: TrainedModel
    ) -> HeldOut[str, Sequence[str]]:
        candidates = frozenset(trained.labels)
        blanks = [
            (place, " ".join([*words[:number], BLANK, *words[number + 1 :]]), word)
            for place, line in enumerate(examples)
            for words in [split("words", line.text, lowercase=True)]
            for number, word in enumerate(words)
            if word in candidates
        ]

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            measured = []
            for top in (1, 5):
                right, asked = np.zeros(len(examples)), np.zeros(len(examples))
                for (place, _, word), words in zip(blanks, answers, strict=True):
                    right[place] += word in words[:top]
                    asked[place] += 1
                measured.append(ratio(right, asked, len(blanks), "sentences", scale=100))
            return measured

        figures = [FigureName(f"top-{top} accuracy", "%") for top in (1, 5)]
        held_out = HeldOut([text for _, text, _ in blanks], measure, figures=figures)
        return with_calibration(held_out, [word for _, _, word in blanks])


def narrowed(model: Fill, config: Any) -> Fill:
    """A model of ``config`` with the weights of ``model``, which knows more candidates."""
    weights = model.state_dict()
    for name in ("output.weight", "output.bias"):
        weights[name] = weights[name][: config.candidates]
    narrow = Fill(config)
    narrow.load_state_dict(weights)
    return narrow


TASK = Cloze()
