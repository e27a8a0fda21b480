"""A look at the vector space that words share: which of them a model reads alike.

    python -m training.neighbours MODEL WORD… [--count N] [--models FOLDER] [--version N]

Prints the nearest symbols of each word by the cosine of their embeddings in the bundle
``models/MODEL/VERSION``, then the cosine of every pair of the words themselves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.errors import BundleError
from bundle.store import Bundle, read_bundle, read_weights
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary

# The table that reads a model's input: a sequence-to-sequence model has one for each side.
_INPUT_TABLES = ("embedding.weight", "source_embedding.weight")


class WordUnknown(ValueError):
    """A word that the vocabulary does not hold, so that it has no embedding of its own."""


@dataclass(frozen=True)
class Neighbour:
    """cosine: of the angle between two embeddings, -1 … 1."""

    symbol: str
    cosine: float


def neighbours(
    embedding: NDArray[Any], vocabulary: Vocabulary, word: str, count: int
) -> list[Neighbour]:
    """The ``count`` symbols nearest to ``word``, the nearest first; the word itself is none.

    embedding: (rows, size), row i of the symbol with id i. Padding, markers and the catch-all
    are nobody's neighbours.

    Raises WordUnknown for a word that the vocabulary does not hold.
    """
    own = _id_of(vocabulary, word)
    cosines = _directions(embedding) @ _directions(embedding[own])
    symbols = np.arange(1, len(vocabulary.symbols) + 1)
    others = symbols[symbols != own]
    nearest = others[np.argsort(-cosines[others], kind="stable")][:count]
    return [Neighbour(vocabulary.symbol_of(token), float(cosines[token])) for token in nearest]


def cosine(embedding: NDArray[Any], vocabulary: Vocabulary, left: str, right: str) -> float:
    """Between the embeddings of two words. Raises WordUnknown as ``neighbours`` does."""
    rows = embedding[[_id_of(vocabulary, word) for word in (left, right)]]
    first, second = _directions(rows)
    return float(first @ second)


def _directions(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Each row (…, size) at length 1; a row of zeros, which has no direction, stays zero."""
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=-1, keepdims=True)
    directions: NDArray[np.float64] = exact / np.where(lengths == 0, 1, lengths)
    return directions


def _id_of(vocabulary: Vocabulary, word: str) -> int:
    token = vocabulary.id_of(word)
    if token == vocabulary.unknown_id:
        raise WordUnknown(f"{word!r} is not in the vocabulary; ask for one of its symbols")
    return token


def embedding_of(bundle: Bundle) -> NDArray[Any]:
    """The table (rows, size), float32, of the symbols that the bundle's model reads."""
    tensors = read_weights(bundle)
    table = next(tensors[name] for name in _INPUT_TABLES if name in tensors)
    return table.astype(np.float32, copy=False)


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """Of what ``embedding_of`` has rows for: a model that reads a vector reads its own output."""
    return bundle.tokenizers.get("input") or bundle.tokenizers["output"]


def show(embedding: NDArray[Any], tokenizer: Tokenizer, words: Sequence[str], count: int) -> None:
    """Print each word's neighbours, and the cosine of every pair of ``words``."""
    words = [word.lower() if tokenizer.lowercase else word for word in words]
    for word in words:
        print(f"{word}:")
        for near in neighbours(embedding, tokenizer.vocabulary, word, count):
            print(f"  {near.cosine:6.3f}  {near.symbol}")
    for left, right in combinations(words, 2):
        print(f"{left} – {right}: {cosine(embedding, tokenizer.vocabulary, left, right):.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.neighbours")
    parser.add_argument("model", help="name of the model")
    parser.add_argument("words", nargs="+", metavar="WORD", help="symbol of its vocabulary")
    parser.add_argument("--count", type=int, default=8, help="neighbours of each word (default: 8)")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    parser.add_argument("--version", type=int, default=1, help="version of the bundle (default: 1)")
    chosen = parser.parse_args(arguments)
    try:
        bundle = read_bundle(chosen.models / chosen.model / str(chosen.version))
        show(embedding_of(bundle), tokenizer_of(bundle), chosen.words, chosen.count)
    except (BundleError, WordUnknown) as error:
        print(f"{chosen.model}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
