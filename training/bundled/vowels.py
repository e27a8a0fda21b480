"""Speakers of Japanese vowels: a recurrent network reads the frames of an utterance.

Split: the archive's own. Of its 270 training utterances every tenth of each speaker validates; the
370 of its test part are held out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.bundled import PackageData
from training.config import Recipe
from training.data.frames import LabelledFrames
from training.data.japanese_vowels import FRAME_SECONDS, TEST, TRAIN, load_vowels
from training.data.packages import AEON
from training.splits import Splits
from training.tasks.frames import ClassifyFrames

_EVERY = 10


class Vowels(ClassifyFrames):
    packages = (AEON,)

    def read(self, recipe: Recipe) -> tuple[Splits[LabelledFrames], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        given, held_out = (load_vowels(part, settings.path) for part in (TRAIN, TEST))
        train, validation = parts_of(given)
        if settings.most:
            train, held_out = train[:: -(-len(train) // settings.most)], held_out[: settings.most]
        return Splits(train, validation, held_out, name="the archive's test part"), []

    def _frame_seconds(self, recipe: Recipe) -> float:
        return FRAME_SECONDS


def parts_of(
    given: Sequence[LabelledFrames],
) -> tuple[list[LabelledFrames], list[LabelledFrames]]:
    """What trains, and what validates: every tenth utterance of a speaker."""
    train, validation, seen = list[LabelledFrames](), list[LabelledFrames](), Counter[str]()
    for example in given:
        seen[example.label] += 1
        (train if seen[example.label] % _EVERY else validation).append(example)
    return train, validation


TASK = Vowels()
