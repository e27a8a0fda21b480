"""Tagger of parts of speech: a bidirectional LSTM over the words of the Brown corpus.

    python -m training.pos [--quick] [--resume] [--seed N]

Split and measure: training/tagging.py.
"""

from __future__ import annotations

import sys

from training.command import Run, run_script
from training.loop import FitSettings
from training.models.options import RecurrentOptions
from training.models.tagger import TaggerConfig
from training.tagging import load_task, train_tagger

VOCABULARY_CAP = 20_000


def train(run: Run) -> None:
    task, held_out = load_task(run, 4_000 if run.quick else VOCABULARY_CAP)
    size, epochs = (32, 3) if run.quick else (128, 6)
    config = TaggerConfig(
        vocabulary_size=len(task.tokenizer.vocabulary),
        labels=len(task.labels),
        embedding_size=64,
        recurrent=RecurrentOptions("lstm", size, 1, bidirectional=True),
        dropout=0.3,
    )
    settings = FitSettings(run.seed, epochs, learning_rate=0.003)
    description = "Tags each word of an English sentence with its part of speech (Brown's tags)."
    train_tagger(run, task, held_out, config, settings, description)


if __name__ == "__main__":
    sys.exit(run_script("pos", train))
