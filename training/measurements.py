"""A measured number with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]

_NORMAL = 1.959964  # of a standard normal distribution, 95 % lie within
ROUNDS = 1_000


@dataclass(frozen=True)
class Measurement:
    """low, high: the 95 % interval, by ``method``."""

    value: float
    examples: int
    low: float
    high: float
    method: str


def share(right: Sequence[bool]) -> Measurement:
    """Of examples that are right or wrong each by itself, in percent."""
    count = sum(right)
    low, high = wilson(count, len(right))
    return Measurement(
        100 * count / len(right), len(right), 100 * low, 100 * high, "Wilson"
    )  # fmt: skip


def ratio(
    parts: ArrayLike, wholes: ArrayLike, examples: int, groups: str, scale: float = 1.0
) -> Measurement:
    """sum(parts) / sum(wholes), (groups,) each; groups: what each is one of, in the plural."""
    over, under = np.asarray(parts, float), np.asarray(wholes, float)
    low, high = bootstrap_ratio(over, under)
    value = float(scale * over.sum() / under.sum())
    return Measurement(value, examples, scale * low, scale * high, f"bootstrap over {groups}")


def f1(rows: NDArray[np.int64], groups: str) -> Measurement:
    """F1 of what is found, in percent. rows: (groups, 3) of each group how many were right, wanted
    and found."""
    random = np.random.default_rng(0)
    drawn = (rows[random.integers(0, len(rows), len(rows))] for _ in range(ROUNDS))
    low, high = np.percentile([_f1(part.sum(axis=0)) for part in drawn], (2.5, 97.5))
    total = rows.sum(axis=0)
    method = f"bootstrap over {groups}"
    return Measurement(_f1(total), int(total[1]), float(low), float(high), method)


def _f1(total: NDArray[np.int64]) -> float:
    right, wanted, found = total.tolist()
    return 200 * right / (wanted + found) if wanted + found else 0.0


def macro_f1(truth: Sequence[str], said: Sequence[str]) -> Measurement:
    """The mean over the labels of each one's F1, in percent: rare labels count like frequent ones.

    A label that no example has counts nothing.
    """
    labels = sorted({*truth, *said})
    place = {label: number for number, label in enumerate(labels)}
    pairs = np.array([[place[a], place[b]] for a, b in zip(truth, said, strict=True)])
    random = np.random.default_rng(0)
    values = [
        _macro_f1(pairs[random.integers(0, len(pairs), len(pairs))], len(labels))
        for _ in range(ROUNDS)
    ]
    low, high = np.percentile(values, (2.5, 97.5))
    value = _macro_f1(pairs, len(labels))
    return Measurement(value, len(pairs), float(low), float(high), "bootstrap over examples")


def _macro_f1(pairs: NDArray[np.int64], labels: int) -> float:
    """pairs: (examples, 2) numbers of the true and the said label."""
    true = np.bincount(pairs[:, 0], minlength=labels)
    said = np.bincount(pairs[:, 1], minlength=labels)
    right = np.bincount(pairs[pairs[:, 0] == pairs[:, 1], 0], minlength=labels)
    f1 = 2 * right / np.maximum(true + said, 1)
    return float(100 * f1[true > 0].mean())


def wilson(right: int, examples: int) -> Interval:
    """Of a share, where each example is right or wrong by itself (Wilson 1927)."""
    share, z2 = right / examples, _NORMAL**2
    middle = (share + z2 / (2 * examples)) / (1 + z2 / examples)
    half = _NORMAL * math.sqrt(share * (1 - share) / examples + z2 / (4 * examples**2))
    half /= 1 + z2 / examples
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_ratio(
    parts: NDArray[np.float64], wholes: NDArray[np.float64], seed: int = 0
) -> Interval:
    """Of sum(parts) / sum(wholes) over ROUNDS draws of as many groups, each drawn alike.

    parts, wholes: (groups,), a group being what hangs together: a sentence's words, say.
    """
    random = np.random.default_rng(seed)
    ratios = []
    for _ in range(ROUNDS):
        drawn = random.integers(0, len(parts), len(parts))
        ratios.append(parts[drawn].sum() / max(wholes[drawn].sum(), 1e-9))
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)
