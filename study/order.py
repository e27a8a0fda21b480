"""Order: bag of words against window, convolution and recurrent networks."""

from __future__ import annotations

from typing import Any

import torch

from study.recipes import Recipe, command_of
from study.sections import Section, Study
from study.sentences import READERS, SPLIT, is_right, logits_of, share_right
from study.settings import Settings
from study.shelf import Found
from study.text import middle, plural, table
from training.data.sentiment import Example
from training.models.baselines import BAG

NAME = "order"

TITLES = {
    "bag": "bag of words",
    "window": "moving window",
    "convolution": "convolution",
    "rnn": "plain RNN",
    "gru": "GRU",
    "lstm": "LSTM",
}


def name_of(reader: str, seed: int) -> str:
    return f"{NAME}-{reader}-{seed}"


def recipes(settings: Settings) -> list[Recipe]:
    return [
        Recipe(name_of(reader, seed), NAME, "sentences", reader, seed)
        for seed in settings.sentences.seeds
        for reader in READERS
    ]


def measure(study: Study) -> Found:
    corpus = study.workshop.sentences.corpus
    return {
        "training": len(corpus.training),
        "made": len(corpus.made),
        "validation": len(corpus.validation),
        "held_out": len(corpus.held_out),
        "pairs": {kind: len(pairs) for kind, pairs in _kinds(study).items()},
        "window": study.settings.sentences.window,
        "seeds": study.settings.sentences.seeds,
        "epochs": study.settings.sentences.epochs,
        "readers": {reader: _measure_reader(study, reader) for reader in READERS},
        "example": [example.text for example in corpus.known_pairs[0]],
        "command": command_of(NAME, study.settings.quick),
    }


def _kinds(study: Study) -> dict[str, list[tuple[Example, Example]]]:
    """Pairs whose words the made training sentences have, and pairs whose words they lack."""
    corpus = study.workshop.sentences.corpus
    return {"known": corpus.known_pairs, "new": corpus.pairs}


def _measure_reader(study: Study, reader: str) -> dict[str, Any]:
    """A figure a seed: accuracies in percent, pairs counted by their kind."""
    corpus, tokenizer = study.workshop.sentences.corpus, study.workshop.sentences.tokenizer
    kinds, held_out, size = _kinds(study), [], 0
    pairs: dict[str, dict[str, list[float]]] = {
        kind: {"both_right": [], "sentences_right": [], "same_logits": []} for kind in kinds
    }
    for seed in study.settings.sentences.seeds:
        trained = study.shelf.trained(name_of(reader, seed))
        model: Any = trained.build()
        size = sum(parameter.numel() for parameter in model.parameters())
        held_out.append(share_right(model, tokenizer, corpus.held_out))
        for kind, row in pairs.items():
            right = [is_right(model, tokenizer, pair) for pair in kinds[kind]]
            row["both_right"].append(sum(all(pair) for pair in right))
            row["sentences_right"].append(100 * sum(map(sum, right)) / (2 * len(right)))
            row["same_logits"].append(sum(_same_logits(study, model, p) for p in kinds[kind]))
    return {"parameters": size, "held_out": held_out, "pairs": pairs}


def _same_logits(study: Study, model: Any, pair: tuple[Example, Example]) -> bool:
    """Each sentence read alone: side by side a product may round its rows otherwise."""
    tokenizer = study.workshop.sentences.tokenizer
    first, second = (logits_of(model, tokenizer, [example.text]) for example in pair)
    return torch.equal(first, second)


def tell(found: Found) -> str:
    bag, pairs = found["readers"][BAG]["pairs"], found["pairs"]
    positive, negative = found["example"]
    counted = zip(*(row["same_logits"] for row in bag.values()), strict=True)
    same = min(sum(counts) for counts in counted)
    rows = (
        (
            TITLES[reader],
            f"{row['parameters']:,}",
            middle(row["held_out"]),
            *(
                middle([100 * right / pairs[kind] for right in row["pairs"][kind]["both_right"]])
                for kind in pairs
            ),
            middle(row["pairs"]["known"]["sentences_right"]),
            f"{max(max(kind['same_logits']) for kind in row['pairs'].values()):.0f}",
        )
        for reader, row in found["readers"].items()
    )
    return f"""\
The lecture's *The food was not bad, great in fact* and *The food was not great, bad in fact* \
are one bag of words with two meanings. So each pair here, such as *{positive}* and \
*{negative}*, holds the same words in another order with opposite labels: a reader that cannot \
tell order gives both the same logits, is right on exactly one of the two, and that is chance: \
no pair, 50 % of the sentences. The bag of words gave both sentences of {same:.0f} of \
{sum(pairs.values())} pairs the same logits to the last bit and had \
{max(max(kind["both_right"]) for kind in bag.values()):.0f} pairs right.

{
        table(
            (
                "reader",
                "parameters",
                "held-out accuracy, %",
                "known words: pairs with both right, %",
                "new words: pairs with both right, %",
                "known words: sentences right, %",
                "pairs with the same logits",
            ),
            rows,
        )
    }

Data: {found["training"]:,} Rotten Tomatoes sentences and {found["made"]:,} made by rule train, \
{found["validation"]} validate; accuracy is on {found["held_out"]:,} {SPLIT}. {pairs["known"]} \
pairs are made of the words of the made training sentences, none of them one of those; \
{pairs["new"]} of words that no made sentence has, so that nothing but reviews says what they \
mean, and a reader that has learned to turn round whatever follows *not* may turn them all. \
One setting for all: \
{plural(found["epochs"], "epoch")} of the same loop, sizes equal within 1 %, window and \
convolution {found["window"]} tokens wide. Median (lowest–highest) of the seeds \
{", ".join(map(str, found["seeds"]))}; the last column is the largest. `{found["command"]}`"""


SECTION = Section(NAME, "Order", measure, tell, recipes)
