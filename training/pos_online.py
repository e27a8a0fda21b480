"""Tagger of parts of speech as the words arrive: an LSTM that reads its own last tag as well.

    python -m training.pos_online [--quick] [--resume] [--seed N]

Split and measure: training/tagging.py. It learns with the true last tag (teacher forcing) and
is measured with its own.
"""

from __future__ import annotations

import sys

from training.command import Run, run_script
from training.loop import FitSettings
from training.models.options import HIDDEN_AND_OUTPUT, RecurrentOptions
from training.models.tagger import TaggerConfig
from training.tagging import load_task, train_tagger

VOCABULARY_CAP = 16_000


def train(run: Run) -> None:
    task, held_out = load_task(run, 4_000 if run.quick else VOCABULARY_CAP)
    size, epochs = (48, 3) if run.quick else (192, 6)
    config = TaggerConfig(
        vocabulary_size=len(task.tokenizer.vocabulary),
        labels=len(task.labels),
        embedding_size=64,
        recurrent=RecurrentOptions("lstm", size, 1, recurrence=HIDDEN_AND_OUTPUT),
        label_embedding_size=32,
        dropout=0.3,
    )
    settings = FitSettings(run.seed, epochs, learning_rate=0.003)
    description = "Tags each English word as it arrives, knowing only what came before it."
    train_tagger(run, task, held_out, config, settings, description)


if __name__ == "__main__":
    sys.exit(run_script("pos-online", train))
