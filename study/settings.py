"""How much of everything a study trains and measures: the whole of it, or a quick look."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How the learning rate of each design is found, and how often it is trained with it.

    seeds: of the figures; the first one searches. learning_rate: tried before its neighbours.
    most_rates: that are tried of one design; 1 for no search.
    """

    seeds: tuple[int, ...] = (1, 2, 3)
    learning_rate: float
    most_rates: int = 5


@dataclass(frozen=True, kw_only=True)
class SentenceSettings(SearchSettings):
    """Of the classifiers.

    sentences: at most so many of the movie sentences, None for all. made: sentences made by rule.
    held_out: at most so many are classified. window: words that a window or a convolution sees.
    short: the longest sentence, in tokens, that the section on longer sequences trains on.
    epochs: of each run, of which the best one is kept.
    """

    sentences: int | None = None
    made: int = 3_000
    held_out: int | None = None
    pairs: int = 200
    vocabulary: int = 10_000
    embedding: int = 64
    window: int = 5
    short: int = 15
    epochs: int = 5
    learning_rate: float = 0.002
    dropout: float = 0.5


@dataclass(frozen=True, kw_only=True)
class CharacterSettings(SearchSettings):
    """Of the generators.

    characters: of the text, None for all. A validation loss is measured after each of ``parts``
    parts of training, of ``batches`` batches each; the best part is kept. parameters: of every
    model.
    """

    characters: int | None = None
    parameters: int = 80_000
    embedding: int = 64
    parts: int = 10
    batches: int = 130
    learning_rate: float = 0.003


@dataclass(frozen=True, kw_only=True)
class SpellingSettings(SearchSettings):
    """Of the sequence-to-sequence models. words, held_out: headwords, None for all.

    Neither searched nor repeated: both designs are LSTMs, and what tells them apart is far more
    than a rate or a seed changes.
    """

    seeds: tuple[int, ...] = (1,)
    most_rates: int = 1
    words: int | None = 40_000
    held_out: int | None = None
    parameters: int = 400_000
    embedding: int = 48
    epochs: int = 5
    learning_rate: float = 0.004
    dropout: float = 0.1


@dataclass(frozen=True)
class ForcingSettings:
    """Of the comparison of one pass with steps: sequences side by side, their lengths."""

    seed: int = 1
    rows: int = 32
    times: tuple[int, ...] = (64, 256)
    rounds: int = 9


@dataclass(frozen=True)
class GradientSettings:
    """distance: the largest, in steps. places: in the held-out text that are averaged over."""

    seed: int = 1
    distance: int = 100
    places: int = 256


@dataclass(frozen=True)
class Settings:
    quick: bool = False
    sentences: SentenceSettings = field(default_factory=SentenceSettings)
    characters: CharacterSettings = field(default_factory=CharacterSettings)
    spelling: SpellingSettings = field(default_factory=SpellingSettings)
    forcing: ForcingSettings = field(default_factory=ForcingSettings)
    gradient: GradientSettings = field(default_factory=GradientSettings)


WHOLE = Settings()
QUICK = Settings(
    quick=True,
    sentences=SentenceSettings(
        seeds=(1,), sentences=300, made=200, held_out=120, pairs=20, vocabulary=1_000,
        epochs=1, most_rates=1,
    ),
    characters=CharacterSettings(
        seeds=(1, 2), characters=30_000, parameters=40_000, embedding=16, parts=2, batches=4,
        most_rates=2,
    ),
    spelling=SpellingSettings(words=600, held_out=120, parameters=40_000, embedding=16, epochs=1),
    forcing=ForcingSettings(rows=4, times=(16,), rounds=1),
    gradient=GradientSettings(distance=20, places=8),
)  # fmt: skip
