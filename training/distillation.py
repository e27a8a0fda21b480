"""A small model learns from a larger one, or from several: their logits on texts without labels.

Hinton, Vinyals and Dean 2015, arXiv:1503.02531; of a transformer by a recurrent network, Tang et
al. 2019, arXiv:1903.12136.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

_CACHED_TOGETHER = 8_192  # texts
_LEAST_WORDS, _MOST_WORDS = 2, 14  # of a span
_SPLICED = 0.4  # of the fragments
_BETWEEN = (", but ", ", and ", " . ", " ; ", ", though ")

Text = TypeVar("Text")


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(rows,) T² KL(softmax(teacher / T) ‖ softmax(logits / T)), both (rows, labels), in nats.

    T² keeps the gradients as large as those of labels are (Hinton et al., section 2).
    """
    wanted, said = ((row / temperature).log_softmax(dim=1) for row in (teacher, logits))
    apart = kl_div(said, wanted, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * apart


@dataclass(frozen=True)
class Stacking:
    """The logits of several classifiers as those of one: a weighted sum and a bias.

    weights: (members,), bias: (labels,) (Wolpert 1992, Stacked generalization).
    """

    weights: Tensor
    bias: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """(rows, members, labels) → (rows, labels)"""
        return (logits * self.weights.unsqueeze(1)).sum(dim=1) + self.bias


def fit_stacking(logits: Tensor, labels: Tensor) -> Stacking:
    """The weights of the lowest cross entropy on rows that no member has learnt: the sum's
    probabilities are calibrated there.

    logits (rows, members, labels), labels (rows,)
    """
    logits = logits.double()
    weights = torch.zeros(logits.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(logits.shape[2], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=500, line_search_fn="strong_wolfe")

    def nats() -> Tensor:
        optimizer.zero_grad()
        stacked = Stacking(weights, bias)(logits)
        # Only differences of the bias count: it is kept from drifting.
        loss = cross_entropy(stacked, labels) + 1e-3 * bias.square().sum()
        loss.backward()
        return loss

    optimizer.step(nats)
    return Stacking(weights.detach().float(), bias.detach().float())


def cached_logits(
    compute: Callable[[Sequence[str]], Tensor], texts: Sequence[str], made_by: str, folder: Path
) -> Tensor:
    """(texts, labels) of ``compute``, kept in ``folder`` part by part, so that a run that was
    stopped goes on.

    A file is named by the digest of its texts and ``made_by``, which names what computes: after
    a change of either nothing old is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for start in range(0, len(texts), _CACHED_TOGETHER):
        part = texts[start : start + _CACHED_TOGETHER]
        digest = hashlib.sha256("\0".join((made_by, *part)).encode()).hexdigest()
        path = folder / f"logits-{digest[:16]}.pt"
        if not path.exists():
            partial = path.with_suffix(f".partial-{os.getpid()}")
            torch.save(compute(part), partial)
            os.replace(partial, path)
        found.append(torch.load(path, weights_only=True))
    return torch.cat(found)


def weights_digest(model: nn.Module) -> str:
    """Names what ``model`` computes, in hexadecimal."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Fragment:
    """sources: the numbers of the texts that it is of."""

    text: str
    sources: tuple[int, ...]


def sample_fragments(texts: Sequence[str], count: int, seed: int) -> list[Fragment]:
    """``count`` spans of words, some of two texts put together, for a teacher to label.

    Few sentences of a kind hold many spans of that kind (Tang et al., section 3.2, n-gram
    sampling). Each has at least _LEAST_WORDS of its texts; texts of fewer are left alone.
    """
    choose = random.Random(seed)
    words = [text.split() for text in texts]
    long_enough = [n for n, found in enumerate(words) if len(found) >= _LEAST_WORDS]
    fragments = []
    for _ in range(count if long_enough else 0):
        sources = choose.sample(
            long_enough, min(len(long_enough), 1 + (choose.random() < _SPLICED))
        )
        spans = [_span(words[n], choose, whole=len(sources) == 1) for n in sources]
        fragments.append(Fragment(choose.choice(_BETWEEN).join(spans), tuple(sources)))
    return fragments


def _span(words: Sequence[str], choose: random.Random, whole: bool) -> str:
    """whole: whether it may be as long as its text."""
    most = len(words) if whole else min(len(words), _MOST_WORDS)
    length = choose.randint(_LEAST_WORDS, most)
    start = choose.randint(0, len(words) - length)
    return " ".join(words[start : start + length])
