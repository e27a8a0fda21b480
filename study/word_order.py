"""Order: bag of words against window, convolution and recurrent networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bundle.tokenizer import Tokenizer
from evaluation.text import middle, table
from study.artifact_cache import Found
from study.recipes import Learner, command_of
from study.sections import Section, Study, say_rates, say_seeds
from study.sentences import KNOWN, OTHER, READERS, SPLIT, Pair, logits_of, share_right
from training.bundled.sentiment import TextClassifier
from training.models.baselines import BAG

NAME = "order"

KINDS = (KNOWN, OTHER)

TITLES = {
    "bag": "bag of words",
    "window": "moving window",
    "convolution": "convolution",
    "rnn": "plain RNN",
    "gru": "GRU",
    "lstm": "LSTM",
}


def learner_of(reader: str) -> Learner:
    return Learner(NAME, "sentences", reader)


LEARNERS = tuple(map(learner_of, READERS))


def measure(study: Study) -> Found:
    corpus = study.trainer.sentences.corpus
    return {
        "training": len(corpus.training),
        "made": len(corpus.made),
        "validation": len(corpus.validation),
        "made_validation": len(corpus.made_validation),
        "held_out": len(corpus.held_out),
        "pairs": {kind: len(pairs) for kind, pairs in corpus.pairs.items()},
        "window": study.settings.sentences.window,
        "seeds": study.settings.sentences.seeds,
        "rates": study.rates(LEARNERS),
        "readers": {reader: _measure_reader(study, reader) for reader in READERS},
        "examples": {
            kind: [example.text for example in pairs[0]] for kind, pairs in corpus.pairs.items()
        },
        "command": command_of(NAME, study.settings.quick),
    }


def _measure_reader(study: Study, reader: str) -> dict[str, Any]:
    """A figure a seed."""
    corpus, tokenizer = study.trainer.sentences.corpus, study.trainer.sentences.tokenizer
    models: list[Any] = [trained.build() for trained in study.trained(learner_of(reader))]
    return {
        "parameters": sum(parameter.numel() for parameter in models[0].parameters()),
        "held_out": [share_right(model, tokenizer, corpus.held_out) for model in models],
        **{
            kind: [score_pairs(model, tokenizer, pairs) for model in models]
            for kind, pairs in corpus.pairs.items()
        },
    }


def score_pairs(
    model: TextClassifier, tokenizer: Tokenizer, pairs: Sequence[Pair]
) -> dict[str, float]:
    """Shares in percent: of the pairs with both right, of their sentences that are right, and
    of the pairs whose two sentences have the same logits to the last bit.

    Each sentence is read alone: rows of one product need not round alike.
    """
    both = right = same = 0
    for pair in pairs:
        logits = [logits_of(model, tokenizer, [example.text])[0] for example in pair]
        hits = [int(row.argmax()) == e.label for row, e in zip(logits, pair, strict=True)]
        both, right = both + all(hits), right + sum(hits)
        same += torch.equal(*logits)
    count = len(pairs)
    return {
        "both": 100 * both / count,
        "sentences": 100 * right / (2 * count),
        "same_logits": 100 * same / count,
    }


def _of(row: dict[str, Any], kind: str, figure: str) -> list[float]:
    """A figure of pairs of one kind, a seed each."""
    return [scores[figure] for scores in row[kind]]


def render(found: Found) -> str:
    bag = found["readers"][BAG]
    same = min(min(_of(bag, kind, "same_logits")) for kind in KINDS)
    both = max(max(_of(bag, kind, "both")) for kind in KINDS)
    sentences = [share for kind in KINDS for share in _of(bag, kind, "sentences")]
    positive, negative = found["examples"][KNOWN]
    rows = (
        (
            TITLES[reader], f"{row['parameters']:,}", middle(row["held_out"]),
            *(middle(_of(row, kind, figure)) for kind in KINDS for figure in ("both", "sentences")),
            middle([share for kind in KINDS for share in _of(row, kind, "same_logits")]),
        )
        for reader, row in found["readers"].items()
    )  # fmt: skip
    header = (
        "reader", "parameters", "held-out accuracy", "known words: pairs right", "sentences right",
        "other words: pairs right", "sentences right", "pairs with the same logits",
    )  # fmt: skip
    return f"""\
The lecture's *The food was not bad, great in fact* and *The food was not great, bad in fact* \
are one bag of words with two meanings. So each pair here, such as *{positive}* and \
*{negative}*, holds the same words in another order with opposite labels: a reader that cannot \
tell order gives both the same logits, is right on exactly one of the two, and that is chance: \
no pair, 50 % of the sentences. The bag of words gave both sentences of {same:.0f} % of the \
pairs the same logits to the last bit, had {both:.0f} % of the pairs right and \
{middle(sentences)} % of the sentences.

All figures are percent:

{table(header, rows)}

Known words are those of the made sentences that train, though no sentence of a pair does; other \
words are in none of them, as in *{found["examples"][OTHER][0]}*, so that what was learned of \
*not* has to be carried over to words that were never seen beside it. Data: \
{found["training"]:,} Rotten Tomatoes sentences and {found["made"]:,} made by rule train, \
{found["validation"]} and {found["made_validation"]} others validate; accuracy is on \
{found["held_out"]:,} {SPLIT}; {found["pairs"][KNOWN]} pairs of known words, \
{found["pairs"][OTHER]} of others. Sizes are equal within 1 %, window and convolution \
{found["window"]} tokens wide; as many epochs for all, \
{say_rates(found["rates"])}; {say_seeds(found["seeds"])}. `{found["command"]}`"""


SECTION = Section(NAME, "Order", measure, render, LEARNERS)
