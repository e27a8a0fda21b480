"""A generator of words with random weights, which says nothing: for measuring large vocabularies.

python -m export.word_generator FOLDER [--words 10000] [--units 256]

Writes FOLDER/words/1: one LSTM, embeddings and states of so many units.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from bundle.store import Bundle
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from export.bundles import export_bundle
from training.checkpoint import TrainedModel
from training.models import build, config_to_json
from training.models.generator import GeneratorConfig
from training.models.options import RecurrentOptions

NAME = "words"
_INPUT_TOKENS, _OUTPUT_TOKENS = 1_000, 10_000


def random_generator(words: int, units: int, seed: int = 0) -> TrainedModel:
    """words: of the vocabulary, its special tokens included."""
    config = GeneratorConfig(words, units, RecurrentOptions("lstm", units))
    torch.manual_seed(seed)
    model = build(config)
    # A vocabulary has ids for padding and for what is unknown beside its symbols.
    tokenizer = Tokenizer("words", Vocabulary(tuple(f"w{number}" for number in range(words - 2))))
    return TrainedModel(
        name=NAME,
        description=f"random weights over {words:,} words",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers={"input": tokenizer, "output": tokenizer},
        limits={"input_tokens": _INPUT_TOKENS, "output_tokens": _OUTPUT_TOKENS},
        figures=(),
        data=(),
        training={"seed": seed, "command": "none"},
    )


def write_word_generator(folder: Path, words: int, units: int) -> Bundle:
    return export_bundle(random_generator(words, units), folder / NAME / "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export.word_generator")
    parser.add_argument("folder", type=Path, help="folder of bundles that it is written into")
    parser.add_argument(
        "--words", type=int, default=10_000, help="size of the vocabulary (default: %(default)s)"
    )
    parser.add_argument(
        "--units", type=int, default=256, help="units of the layer (default: %(default)s)"
    )
    chosen = parser.parse_args()
    write_word_generator(chosen.folder, chosen.words, chosen.units)
    return 0


if __name__ == "__main__":
    sys.exit(main())
