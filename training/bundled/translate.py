"""English verses into Spanish, in pieces of words.

Split: every tenth verse of at most 20 English words is held out, every twentieth validates; the
others train, longer ones as well. Measured by BLEU as sacrebleu has it, whose signature each
figure names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from training.bundled import PackageData
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data import verses
from training.data.packages import REINA_VALERA, WORLD_ENGLISH
from training.data.verses import load_pairs, split_pairs
from training.held_out import FigureName, HeldOut
from training.measurements import ROUNDS, Measurement
from training.splits import Splits, splits_of
from training.tasks.seq2seq import Pair, Seq2SeqOfFiles


def read_splits(data: Path, most: int = 0) -> dict[str, list[verses.Pair]]:
    """most: pairs, spread over all of them; 0 for all."""
    pairs = load_pairs(data)
    return split_pairs(pairs[:: len(pairs) // most] if most else pairs)


class Translate(Seq2SeqOfFiles):
    packages = (WORLD_ENGLISH, REINA_VALERA)
    beams = (5,)

    def read(self, recipe: Recipe) -> tuple[Splits[Pair], list[tuple[str, str]]]:
        settings = recipe.data_settings(PackageData)
        splits = read_splits(settings.path, settings.most)
        short = f"verses of at most {verses.MOST_WORDS} English words"
        parts = {
            part: [Pair(pair.english, pair.spanish) for pair in pairs]
            for part, pairs in splits.items()
        }
        name = f"every tenth of {'some' if settings.most else 'the'} {short}"
        return splits_of(parts, name), []

    def split_name(self, split: str, beam: int | None) -> str:
        return f"{split}, beam of {beam}"

    def held_out(self, examples: Sequence[Pair], trained: TrainedModel) -> HeldOut[str, str]:
        wanted = [[pair.target for pair in examples]]
        metrics = {"BLEU": BLEU(), "chrF": CHRF()}
        # A signature is known once something was scored.
        for metric in metrics.values():
            metric.corpus_score(wanted[0], wanted)

        def measure(answers: Sequence[str]) -> list[Measurement]:
            measured = []
            for metric in (BLEU(), CHRF()):
                found = metric.corpus_score(list(answers), wanted, n_bootstrap=ROUNDS)
                # What sacrebleu prints as "μ ± ci".
                low, high = found._mean - found._ci, found._mean + found._ci
                method = "bootstrap over verses (sacrebleu)"
                measured.append(Measurement(found.score, len(examples), low, high, method))
            return measured

        figures = [
            FigureName(name, f"points, {metric.get_signature()}")
            for name, metric in metrics.items()
        ]
        return HeldOut([pair.source for pair in examples], measure, figures=figures)


TASK = Translate()
