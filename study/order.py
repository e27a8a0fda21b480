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
        "pairs": len(corpus.pairs),
        "window": study.settings.sentences.window,
        "seeds": study.settings.sentences.seeds,
        "epochs": study.settings.sentences.epochs,
        "readers": {reader: _measure_reader(study, reader) for reader in READERS},
        "example": [example.text for example in corpus.pairs[0]],
        "command": command_of(NAME, study.settings.quick),
    }


def _measure_reader(study: Study, reader: str) -> dict[str, Any]:
    """A figure a seed: accuracies in percent, pairs counted."""
    corpus, tokenizer = study.workshop.sentences.corpus, study.workshop.sentences.tokenizer
    both, single, same, held_out, size = [], [], [], [], 0
    for seed in study.settings.sentences.seeds:
        trained = study.shelf.trained(name_of(reader, seed))
        model: Any = trained.build()
        size = sum(parameter.numel() for parameter in model.parameters())
        held_out.append(share_right(model, tokenizer, corpus.held_out))
        right = [is_right(model, tokenizer, pair) for pair in corpus.pairs]
        both.append(sum(all(pair) for pair in right))
        single.append(100 * sum(map(sum, right)) / (2 * len(right)))
        same.append(sum(_same_logits(study, model, pair) for pair in corpus.pairs))
    return {
        "parameters": size,
        "held_out": held_out,
        "pairs_right": both,
        "sentences_right": single,
        "pairs_with_same_logits": same,
    }


def _same_logits(study: Study, model: Any, pair: Any) -> bool:
    tokenizer = study.workshop.sentences.tokenizer
    first, second = logits_of(model, tokenizer, [example.text for example in pair])
    return torch.equal(first, second)


def tell(found: Found) -> str:
    bag = found["readers"][BAG]
    pairs = found["pairs"]
    positive, negative = found["example"]
    rows = (
        (
            TITLES[reader],
            f"{row['parameters']:,}",
            middle(row["held_out"]),
            middle([100 * right / pairs for right in row["pairs_right"]]),
            middle(row["sentences_right"]),
            f"{max(row['pairs_with_same_logits'])}",
        )
        for reader, row in found["readers"].items()
    )
    return f"""\
The lecture's *The food was not bad, great in fact* and *The food was not great, bad in fact* \
are one bag of words with two meanings. So each pair here, such as *{positive}* and \
*{negative}*, holds the same words in another order with opposite labels: a reader that cannot \
tell order gives both the same logits, is right on exactly one of the two, and that is chance: \
no pair, 50 % of the sentences. The bag of words gave both sentences of \
{min(bag["pairs_with_same_logits"])} of {pairs} pairs the same logits to the last bit, had \
{max(bag["pairs_right"])} pairs right and {middle(bag["sentences_right"])} % of the sentences.

{
        table(
            (
                "reader",
                "parameters",
                "held-out accuracy, %",
                "pairs with both right, %",
                "sentences of pairs right, %",
                "pairs with the same logits",
            ),
            rows,
        )
    }

Data: {found["training"]:,} Rotten Tomatoes sentences and {found["made"]:,} made by rule train, \
{found["validation"]} validate; accuracy is on {found["held_out"]:,} {SPLIT}; the pairs are made \
of words that no made training sentence has. One setting for all: \
{plural(found["epochs"], "epoch")} of the same loop, sizes equal within 1 %, window and \
convolution {found["window"]} tokens wide. Median (lowest–highest) of the seeds \
{", ".join(map(str, found["seeds"]))}; the last column is the largest. `{found["command"]}`"""


SECTION = Section(NAME, "Order", measure, tell, recipes)
