"""Tagger of parts of speech as the words arrive: an LSTM that reads its own last tag as well.

    python -m training.pos_online [--quick] [--resume] [--seed N] [--recipe FILE]

Split and measure: training/tagging.py. It learns with the true last tag (teacher forcing) and
is measured with its own.
"""

from __future__ import annotations

import sys

from training.cli import Run, run_script
from training.tagging import held_out, train_tagger

__all__ = ["held_out", "train"]


def train(run: Run) -> None:
    train_tagger(run, "Tags each English word as it arrives, knowing only what came before it.")


if __name__ == "__main__":
    sys.exit(run_script("pos-online", train))
