"""Tagger of parts of speech: a bidirectional LSTM over the words of the Brown corpus.

    python -m training.pos [--quick] [--resume] [--seed N] [--recipe FILE]

Split and measure: training/tagging.py.
"""

from __future__ import annotations

import sys

from training.cli import Run, run_script
from training.tagging import held_out, train_tagger

__all__ = ["held_out", "train"]


def train(run: Run) -> None:
    train_tagger(
        run, "Tags each word of an English sentence with its part of speech (Brown's tags)."
    )


if __name__ == "__main__":
    sys.exit(run_script("pos", train))
