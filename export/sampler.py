"""The draw of the next token, as nodes at the end of a step graph and as NumPy.

Draws are by inverse transform: the tokens that may be drawn, from the most to the least
probable, share the interval [0, 1) by their weight, and a uniform number picks one. Nucleus
(top-p) sampling is Holtzman et al. 2020, arXiv:1904.09751.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Numbers = TypeVar("Numbers", Tensor, Array)


@dataclass(frozen=True)
class Controls(Generic[Numbers]):
    """How each row's token is drawn: tensors in a graph, arrays in NumPy.

    temperature, top_k, top_p, min_p, uniform: (batch,); temperature 0 takes the most probable
    token (the lowest id among equals); top_k 0, top_p 1 and min_p 0 leave every token.
    seen: (batch, vocabulary) bool, the tokens whose logits ``repetition`` (batch,) divides
    where positive and multiplies where negative (Keskar et al. 2019, arXiv:1909.05858).
    bias: (batch, vocabulary), then added to the logits; -inf bans a token.
    """

    temperature: Numbers
    top_k: Numbers
    top_p: Numbers
    min_p: Numbers
    uniform: Numbers
    repetition: Numbers
    seen: Numbers
    bias: Numbers


def draw(logits: Tensor, silent: Tensor, controls: Controls[Tensor]) -> tuple[Tensor, ...]:
    """One token a row, and the model's own log-probability of it and of every token.

    logits: (batch, vocabulary). silent: (vocabulary,) 0, or -inf for ids never drawn.

    Returns token (batch,) int64, its log-probability (batch,) and all log-probabilities
    (batch, vocabulary), all before penalties, bias, temperature and cuts.
    """
    c = controls
    greedy = c.temperature <= 0
    scaled = (_adjusted(logits, c) + silent) / torch.where(greedy, 1.0, c.temperature).unsqueeze(1)
    vocabulary = logits.shape[1]
    ranked, tokens = torch.topk(scaled, vocabulary, dim=1)
    limit = torch.where(c.top_k > 0, c.top_k, vocabulary)
    limit = torch.where(greedy, 1, limit).unsqueeze(1)
    rank = torch.arange(vocabulary)
    weights = torch.softmax(ranked.masked_fill(rank >= limit, float("-inf")), dim=1)
    before = weights.cumsum(dim=1) - weights
    within = (before < c.top_p.unsqueeze(1)) | (c.top_p >= 1).unsqueeze(1)
    within = within & (weights >= c.min_p.unsqueeze(1) * weights[:, :1])
    kept = (within | (rank == 0)).to(weights.dtype) * weights
    edges = kept.cumsum(dim=1)
    passed = (edges <= c.uniform.unsqueeze(1) * edges[:, -1:]).sum(dim=1)
    last = (kept > 0).sum(dim=1) - 1
    chosen = torch.minimum(passed, last).unsqueeze(1)
    token = tokens.gather(1, chosen)
    log_probabilities = torch.log_softmax(logits, dim=1)
    log_probability = log_probabilities.gather(1, token)
    return token.squeeze(1), log_probability.squeeze(1), log_probabilities


def _adjusted(logits: Tensor, controls: Controls[Tensor]) -> Tensor:
    repetition = controls.repetition.unsqueeze(1)
    repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
    return torch.where(controls.seen, repeated, logits) + controls.bias


@dataclass(frozen=True)
class Draw:
    """What NumPy draws for the same uniforms: (batch,) each.

    margin: how far, in probability, the uniform lies from the nearest edge between two
    tokens; a draw within rounding of an edge may fall to either side.
    """

    token: Array
    log_probability: Array
    margin: Array


def draw_numpy(logits: Array, silent: Array, controls: Controls[Array]) -> Draw:
    """The same draw in float64, row by row: what the graph is checked against."""
    rows = [
        _draw_row(logits[i].astype(np.float64), silent, controls, i) for i in range(len(logits))
    ]
    token, log_probability, margin = (np.array(column) for column in zip(*rows, strict=True))
    return Draw(token, log_probability, margin)


def _draw_row(
    logits: Array, silent: Array, controls: Controls[Array], row: int
) -> tuple[int, float, float]:
    own = logits - np.logaddexp.reduce(logits)
    allowed = _adjusted_row(logits, controls, row) + silent
    temperature, top_p = float(controls.temperature[row]), float(controls.top_p[row])
    if temperature <= 0:
        token = int(allowed.argmax())
        ordered = np.sort(allowed)[::-1]
        return token, float(own[token]), float(ordered[0] - ordered[1])
    order = np.argsort(-allowed, kind="stable")[: int(controls.top_k[row]) or len(allowed)]
    weights = np.exp((allowed[order] - allowed[order[0]]) / temperature)
    weights /= weights.sum()
    least = float(controls.min_p[row]) * weights[0]
    before = weights.cumsum() - weights
    margins = [np.abs(before - top_p).min() if top_p < 1 else 1.0]
    margins.append(np.abs(weights[1:] - least).min(initial=1.0) if least else 1.0)
    inside = ((before < top_p) | (top_p >= 1)) & (weights >= least)
    order, weights = order[inside], weights[inside]
    edges = weights.cumsum() / weights.sum()
    uniform = float(controls.uniform[row])
    chosen = min(int((edges <= uniform).sum()), len(order) - 1)
    # Two equal logits at the edge of top-k may be distinguished by rounding alone.
    token = int(order[chosen])
    return token, float(own[token]), float(min(np.abs(edges - uniform).min(), *margins))


def _adjusted_row(logits: Array, controls: Controls[Array], row: int) -> Array:
    repetition = float(controls.repetition[row])
    repeated = np.where(logits > 0, logits / repetition, logits * repetition)
    adjusted: Array = np.where(controls.seen[row], repeated, logits) + controls.bias[row]
    return adjusted
