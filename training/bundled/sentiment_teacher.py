"""What teaches the sentiment model: a transformer and two naive Bayes, together.

The transformer (training/data/minilm.py) is tuned on what the model itself learns from. The
weights of the sum are those of the lowest loss on validation sentences, which no member has read.
Nothing of the teacher is in a bundle but what a model learnt of its logits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import split
from training.data.minilm import WordPiece
from training.data.sentiment import LABELS, Example
from training.distillation import (
    Stacking,
    cached_logits,
    fit_stacking,
    sample_fragments,
    weights_digest,
)
from training.floors.naive_bayes import NaiveBayes, word_features
from training.sentence_encoder import SentenceClassifier

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORDS = range(3, 41)  # of a review's sentence that is worth a label
_BATCH = 128  # texts that the transformer reads together


@dataclass(frozen=True)
class Unlabelled:
    """sources: what it is of. A member that learnt those labels it as if it had not."""

    text: str
    sources: tuple[Example, ...] = ()


class Teacher:
    """Three members, and the Stacking of them.

    sentences, reviews: what each naive Bayes over word pairs learns. folder: of the transformer's
    logits, which are kept.
    """

    names = ("transformer", "naive Bayes on sentences", "naive Bayes on reviews")

    def __init__(
        self,
        encoder: SentenceClassifier,
        tokenizer: WordPiece,
        sentences: Sequence[Example],
        reviews: Sequence[Example],
        folder: Path,
    ) -> None:
        self.encoder, self.tokenizer, self.folder = encoder.eval(), tokenizer, folder
        self.bayes = [_Bayes(sentences), _Bayes(reviews)]
        self.made_by = weights_digest(encoder)

    def members(self, texts: Sequence[Unlabelled]) -> Tensor:
        """(texts, members, labels)"""
        read = partial(encoder_logits, self.encoder, self.tokenizer)
        plain = [unlabelled.text for unlabelled in texts]
        logits = [cached_logits(read, plain, self.made_by, self.folder)]
        logits += [torch.tensor([bayes.logits(u) for u in texts]) for bayes in self.bayes]
        return torch.stack(logits, dim=1)

    def stacked_on(self, validation: Sequence[Example]) -> tuple[Stacking, list[str]]:
        """The members' sum as its loss on ``validation`` is lowest, and a line for people of each
        member and of the sum."""
        logits = self.members([Unlabelled(e.text) for e in validation])
        labels = torch.tensor([e.label for e in validation])
        stacking = fit_stacking(logits, labels)

        def right(of: Tensor) -> str:
            return f"{100 * (of.argmax(dim=1) == labels).float().mean():.2f} %"

        lines = [
            f"{name}: {right(logits[:, n])} of validation, weight {stacking.weights[n]:.4f}"
            for n, name in enumerate(self.names)
        ]
        return stacking, [*lines, f"all: {right(stacking(logits))} of validation"]


class _Bayes:
    def __init__(self, examples: Sequence[Example]) -> None:
        self.learnt = {example.text for example in examples}
        labels = [LABELS[example.label] for example in examples]
        self.model = NaiveBayes([_features(example.text) for example in examples], labels)

    def logits(self, unlabelled: Unlabelled) -> list[float]:
        left_out = [
            (_features(source.text), LABELS[source.label])
            for source in unlabelled.sources
            if source.text in self.learnt
        ]
        scores = self.model.scores(_features(unlabelled.text), left_out)
        return [scores[label] for label in LABELS]


# A review is left out of each of its sentences, which follow one another.
@lru_cache(maxsize=1_000)
def _features(text: str) -> set[str]:
    return word_features(split("words", text, lowercase=True))


@torch.no_grad()
def encoder_logits(
    encoder: SentenceClassifier, tokenizer: WordPiece, texts: Sequence[str]
) -> Tensor:
    """(texts, labels), read in batches of texts of similar length."""
    rows = [torch.tensor(tokenizer.encode(text).ids) for text in texts]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    logits = torch.zeros(len(rows), encoder.config.labels)
    for start in range(0, len(order), _BATCH):
        numbers = order[start : start + _BATCH]
        part = [rows[number] for number in numbers]
        lengths = torch.tensor([len(row) for row in part])
        logits[numbers] = encoder(pad_sequence(part, batch_first=True), lengths)
    return logits


def review_sentences(reviews: Sequence[Example], count: int, seed: int) -> list[Unlabelled]:
    """``count`` of the sentences of _WORDS words, drawn from all; those of a review together."""
    found = [
        Unlabelled(text, (review,))
        for review in reviews
        for text in _SENTENCE_END.split(review.text)
        if len(text.split()) in _WORDS
    ]
    drawn = random.Random(seed).sample(range(len(found)), min(count, len(found)))
    return [found[number] for number in sorted(drawn)]


def fragments_of(examples: Sequence[Example], count: int, seed: int) -> list[Unlabelled]:
    """``count`` fragments (training/distillation.py) of ``examples``."""
    fragments = sample_fragments([example.text for example in examples], count, seed)
    return [
        Unlabelled(fragment.text, tuple(examples[number] for number in fragment.sources))
        for fragment in fragments
    ]
