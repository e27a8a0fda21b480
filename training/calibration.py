"""How far a model's probabilities are to be believed, and the one scalar that mends them.

Calibration as Guo et al. 2017 have it (arXiv:1706.04599): of answers given with probability p, a
share of p is right. Temperature scaling (section 4.2) divides the logits by a scalar that is fitted
on what validates; here a model's output layer is divided by it, so that its graphs hold it and the
ranking of its answers stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from training.held_out import BEST, FigureName, HeldOut, Ranked
from training.measurements import ROUNDS, Measurement
from training.models.embedding import round_large_tables

BINS = 15  # as in the paper
FIGURE = "expected calibration error"
MOST_LOGITS = 30_000_000  # that a temperature is fitted on: 120 MB
_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(logits: Tensor, answers: Tensor) -> float:
    """What ``logits`` are divided by for the highest likelihood of ``answers``, 0.05 … 20.

    logits (examples, labels), answers (examples,) the numbers of the right labels. One answer of
    examples + 2 counts as any label (Platt 1999, section 2.2): few that are all right say little.
    """
    any_label = 1 / (len(answers) + 2)
    right = (1 - any_label) * logits.gather(1, answers.unsqueeze(1)).mean()
    right = right + any_label * logits.mean()
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    # The loss is convex in 1 / temperature, so its slope has one root.
    for _ in range(40):
        middle = (low + high) / 2
        expected = (torch.softmax(middle * logits, dim=1) * logits).sum(dim=1).mean()
        if expected > right:
            high = middle
        else:
            low = middle
    return 2 / (low + high)


@torch.no_grad()
def divide_logits(model: nn.Module, temperature: float) -> None:
    """Of a model whose logits a linear layer ``output`` makes.

    A large table is rounded again (training/models/embedding.py).
    """
    output = model.output
    assert isinstance(output, nn.Linear)
    output.weight.div_(temperature)
    output.bias.div_(temperature)
    round_large_tables(model)


def calibrate(model: nn.Module, logits: Tensor, answers: Tensor) -> dict[str, Any]:
    """Divides the model's logits by the temperature that fits its ``logits`` on what validates:
    shapes as fit_temperature's. What a manifest records of it.
    """
    temperature = fit_temperature(logits, answers)
    divide_logits(model, temperature)
    losses = [
        nn.functional.cross_entropy(logits / divided, answers).item()
        for divided in (1.0, temperature)
    ]
    print(
        f"calibrated: logits divided by {temperature:.3f}; loss of {len(answers):,} that validate "
        f"{losses[0]:.4f}, then {losses[1]:.4f}"
    )
    return {"calibration_temperature": round(temperature, 4)}


def calibration_error(confidence: ArrayLike, right: ArrayLike) -> Measurement:
    """The expected calibration error in percent, over BINS bins of equal width.

    confidence (examples,): the probability of each first answer. right (examples,): whether it is.
    The mean over the examples of how far a bin's share of right answers lies from its mean
    confidence (Guo et al. 2017, equation 3).
    """
    sure, hits = np.asarray(confidence, float), np.asarray(right, float)
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    # A bin counts by its size, so the sizes cancel: what is left are the gaps' sums.
    random = np.random.default_rng(0)
    drawn = (random.integers(0, len(sure), len(sure)) for _ in range(ROUNDS))
    rounds = [_error(bins[rows], (hits - sure)[rows]) for rows in drawn]
    low, high = np.percentile(rounds, (2.5, 97.5))
    value = _error(bins, hits - sure)
    method = f"bootstrap over examples, {BINS} bins"
    return Measurement(value, len(sure), float(low), float(high), method)


def _error(bins: NDArray[np.int64], gaps: NDArray[np.float64]) -> float:
    sums = np.bincount(bins, weights=gaps, minlength=BINS)
    return float(100 * np.abs(sums).sum() / len(gaps))


def ranked(logits: Tensor, names: Sequence[str], most: int = BEST) -> list[Ranked]:
    """logits (rows, names) → the names of each row, the likeliest first, ``most`` at most."""
    best = torch.softmax(logits, dim=1).topk(min(most, len(names)), dim=1)
    return [
        Ranked([names[number] for number in row], sure)
        for row, sure in zip(best.indices.tolist(), best.values[:, 0].tolist(), strict=True)
    ]


def with_calibration(
    held_out: HeldOut[Any, Sequence[str]], truth: Sequence[str], split: str = ""
) -> HeldOut[Any, Sequence[str]]:
    """``held_out`` with the calibration error of the first questions as its last figure.

    truth: the right answer to each of them. Answers without probabilities have no such figure.
    """

    def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
        measured = list(held_out.measure(answers))
        first = answers[: len(truth)]
        sure = [one.confidence for one in first if isinstance(one, Ranked)]
        if len(sure) == len(truth):
            right = [one[0] == own for one, own in zip(first, truth, strict=True)]
            measured.append(calibration_error(sure, right))
        return measured

    figures = [*held_out.figures, FigureName(FIGURE, "%", split)]
    return HeldOut(held_out.questions, measure, held_out.confusion, figures)
