"""The moving window: what stands before it does not exist."""

from __future__ import annotations

from typing import Any

import torch

from evaluation.text import listed, power, table
from study import word_order
from study.artifact_cache import Found
from study.recipes import command_of
from study.sections import Section, Study
from study.sentences import READERS, logits_of
from training.models.baselines import WINDOW

NAME = "window"

SENTENCE = "Mr. X who is an ex-employee of company Y is currently running his own business."
_SUBJECT, _REFERENCE = "mr", "his"

# What may stand in the sentence before the window.
_BEGINNINGS = (
    "the worst film of the year made him rich and he is now",
    "a wonderful and funny story of a woman who loves",
    "",
)


def measure(study: Study) -> Found:
    dataset = study.trainer.sentences
    tokens, width = dataset.tokenizer.split(SENTENCE), study.settings.sentences.window
    visible = " ".join(tokens[-width:])
    texts = [" ".join(tokens), *(f"{beginning} {visible}" for beginning in _BEGINNINGS)]
    lengths = sorted(dataset.length(example) for example in dataset.corpus.held_out)
    return {
        "width": width,
        "tokens": len(tokens),
        "visible": visible,
        "needed_for_reference": tokens.index(_REFERENCE) - tokens.index(_SUBJECT) + 1,
        "beginnings": _BEGINNINGS,
        "moved": {reader: _moved(study, reader, texts) for reader in READERS},
        "fits": 100 * sum(length <= width for length in lengths) / len(lengths),
        "half": lengths[len(lengths) // 2],
        "most": lengths[int(0.95 * len(lengths))],
        "longest": lengths[-1],
        "embedding": _width_of_embedding(study),
        "seed": study.settings.sentences.seeds[0],
        "command": command_of(NAME, study.settings.quick),
    }


def _model(study: Study, reader: str) -> Any:
    return study.trained(word_order.learner_of(reader))[0].build()


def _width_of_embedding(study: Study) -> int:
    return int(_model(study, WINDOW).config.embedding_size)


def _moved(study: Study, reader: str, texts: list[str]) -> dict[str, Any]:
    """The largest change of a logit when what stands before the window is another text."""
    model, tokenizer = _model(study, reader), study.trainer.sentences.tokenizer
    own, *others = (logits_of(model, tokenizer, [text])[0] for text in texts)
    return {
        "largest": max(float((own - other).abs().max()) for other in others),
        "same_bits": all(torch.equal(own, other) for other in others),
    }


def render(found: Found) -> str:
    rows = (
        (word_order.TITLES[reader], power(row["largest"]), "yes" if row["same_bits"] else "no")
        for reader, row in found["moved"].items()
    )
    same = [word_order.TITLES[reader] for reader, row in found["moved"].items() if row["same_bits"]]
    others = [
        word_order.TITLES[reader] for reader, row in found["moved"].items() if not row["same_bits"]
    ]
    return f"""\
A window of the last {found["width"]} tokens of *{SENTENCE}* is *{found["visible"]}*: who runs \
the business is not in it. Whatever is put before it, {len(found["beginnings"])} other \
beginnings here, gave the same logits to the last bit from: {listed(same) or "none"}. They moved \
with: {listed(others) or "none"}.

{table(("reader", "largest change of a logit", "same bits"), rows)}

A window that ends at *his* and still holds *Mr.* is {found["needed_for_reference"]} tokens \
wide, one for the whole sentence {found["tokens"]}. Of the held-out movie sentences \
{found["fits"]:.1f} % fit into {found["width"]} tokens; half of them have {found["half"]} or \
more, one in twenty has {found["most"]} or more, the longest {found["longest"]}. Each token more \
is {found["embedding"]}² = {found["embedding"] ** 2:,} weights more in the window's layer, and \
none in a recurrent one.

Models of the section on order, seed {found["seed"]}. `{found["command"]}`"""


SECTION = Section(NAME, "The window", measure, render, word_order.LEARNERS)
