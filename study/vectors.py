"""One-hot vectors, and the vector space that takes their place."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations

from bundle.store import read_bundle
from evaluation.text import table
from study.artifact_cache import Found
from study.recipes import command_of
from study.sections import Section, Study
from training.neighbours import cosine, embedding_of, neighbours
from training.one_hot import cost_of_lookup, cost_of_product

NAME = "vectors"

WORDS = ("good", "awesome", "food")
_VOCABULARY = 10_000
_NEIGHBOURS = 6
_BUNDLE = "sentiment"


def measure(study: Study) -> Found:
    bundle = read_bundle(study.models / _BUNDLE / "1")
    embedding, vocabulary = embedding_of(bundle), bundle.tokenizers["input"].vocabulary
    size = embedding.shape[1]
    return {
        "bundle": _BUNDLE,
        "seed": bundle.manifest.training.get("seed"),
        "words": len(vocabulary.symbols),
        "size": size,
        "vocabulary": _VOCABULARY,
        "product": asdict(cost_of_product(_VOCABULARY, size)),
        "lookup": asdict(cost_of_lookup(size)),
        "cosines": [
            [left, right, cosine(embedding, vocabulary, left, right)]
            for left, right in combinations(WORDS, 2)
        ],
        "neighbours": {
            word: [
                [near.symbol, near.cosine]
                for near in neighbours(embedding, vocabulary, word, _NEIGHBOURS)
            ]
            for word in WORDS
        },
        "command": command_of(NAME, study.settings.quick),
    }


def render(found: Found) -> str:
    costs = (
        (
            name, f"{row['word_bytes']:,}", f"{row['read_bytes']:,}",
            f"{row['multiplications']:,}",
        )
        for name, row in (
            ("one-hot vector times the matrix", found["product"]),
            ("row of the matrix", found["lookup"]),
        )
    )  # fmt: skip
    near = (
        (word, ", ".join(f"{symbol} {value:.2f}" for symbol, value in row))
        for word, row in found["neighbours"].items()
    )
    cosines = ", ".join(f"{l} and {r} {value:.3f}" for l, r, value in found["cosines"])  # noqa: E741
    return f"""\
As one-hot vectors *food*, *good* and *awesome* are equally far from each other, whatever they \
mean: every cosine is 0. Times the embedding each is one row of it, and rows can be near. One \
word of {found["vocabulary"]:,} on its way to {found["size"]} numbers:

{table(("", "bytes for the word", "bytes read", "multiplications"), costs)}

In the embedding of the bundle `{found["bundle"]}` ({found["words"]:,} words) the cosines are: \
{cosines}.

{table(("word", "nearest by cosine"), near)}

The bundle's embedding was learned for one purpose, telling praise from blame, with seed \
{found["seed"]}. `{found["command"]}`"""


SECTION = Section(NAME, "One-hot vectors and the vector space", measure, render)
