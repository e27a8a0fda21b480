"""The draw of the next token, as nodes at the end of a step graph and as NumPy.

Draws are by inverse transform: the tokens that may be drawn, from the most to the least
probable, share the interval [0, 1) by their weight, and a uniform number picks one. Nucleus
(top-p) sampling is Holtzman et al. 2020, arXiv:1904.09751. The cuts follow one another:
temperature, top-k, top-p, min-p, typical-p, each over what the one before has left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def draw(logits: Tensor, suppressed: Tensor, controls: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """One token a row, and the model's own log-probability of it and of every token.

    logits: (batch, vocabulary). suppressed: (vocabulary,) 0, or -inf for ids never drawn.
    controls: a step graph's inputs by name, the parameters of bundle/sampling.py as columns of
    (batch,) among them. Beside these: uniform (batch,) in [0, 1); seen (batch, vocabulary)
    bool, the tokens that ``repetition`` makes less likely; bias (batch, vocabulary), added to
    the logits, -inf bans a token. Temperature 0 takes the lowest id among the most probable.

    Returns token (batch,) int64, its log-probability (batch,) and all log-probabilities
    (batch, vocabulary), all before penalties, bias, temperature and cuts.
    """
    temperature, top_k, top_p, min_p, uniform = (
        controls[name] for name in ("temperature", "top_k", "top_p", "min_p", "uniform")
    )
    greedy = temperature <= 0
    adjusted = _adjusted(logits, controls) + suppressed
    scaled = adjusted / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    vocabulary = logits.shape[1]
    ranked, tokens = torch.topk(scaled, vocabulary, dim=1)
    limit = torch.where(top_k > 0, top_k, vocabulary)
    limit = torch.where(greedy, 1, limit).unsqueeze(1)
    rank = torch.arange(vocabulary)
    weights = torch.softmax(ranked.masked_fill(rank >= limit, float("-inf")), dim=1)
    before = weights.cumsum(dim=1) - weights
    within = (before < top_p.unsqueeze(1)) | (top_p >= 1).unsqueeze(1)
    within = within & (weights >= min_p.unsqueeze(1) * weights[:, :1])
    kept = (within | (rank == 0)).to(weights.dtype) * weights
    kept = _typical(kept, ranked, controls["typical_p"])
    edges = kept.cumsum(dim=1)
    # A uniform is at most 1 - 2**-24, so its product with the sum rounds to less than the sum:
    # an edge lies above it, and the first one that does ends a token that has a weight.
    chosen = (edges <= uniform.unsqueeze(1) * edges[:, -1:]).sum(dim=1, keepdim=True)
    token = tokens.gather(1, chosen)
    log_probabilities = torch.log_softmax(logits, dim=1)
    log_probability = log_probabilities.gather(1, token)
    return token.squeeze(1), log_probability.squeeze(1), log_probabilities


def _typical(kept: Tensor, ranked: Tensor, typical_p: Tensor) -> Tensor:
    """``kept`` with zeros for what locally typical sampling cuts.

    kept, ranked: (batch, vocabulary), the weights and the scaled logits by rank. typical_p:
    (batch,), off at 1; at 0 as well, which is what a row without a stream holds.

    It takes a second sort, so a graph computes it in a branch, for steps with a row that asks:
    the other rows' weights are the same bits on either side.
    """
    is_asked = (typical_p * (1 - typical_p)).amax(dim=0) > 0
    operands = (kept, ranked, typical_p)
    if torch.compiler.is_exporting():
        return torch.cond(is_asked, _typical_weights, _all_weights, operands)
    return _typical_weights(*operands) if is_asked else kept


def _all_weights(kept: Tensor, ranked: Tensor, typical_p: Tensor) -> Tensor:
    return kept.clone()  # a branch may not give back what it was given


def _typical_weights(kept: Tensor, ranked: Tensor, typical_p: Tensor) -> Tensor:
    # A row's sums are running ones: onnxruntime's plain sums round by where a row lies.
    left = ranked.masked_fill(kept <= 0, float("-inf"))
    probability, surprise = torch.softmax(left, dim=1), -torch.log_softmax(left, dim=1)
    terms = torch.where(probability > 0, probability * surprise, 0.0)
    entropy = terms.cumsum(dim=1)[:, -1:]
    # Of equally distant tokens the more probable one is first, then the one of the lower id.
    _, order = torch.topk((surprise - entropy).abs(), kept.shape[1], dim=1, largest=False)
    ordered = probability.gather(1, order)
    before = ordered.cumsum(dim=1) - ordered
    inside = before < typical_p.unsqueeze(1)
    inside = torch.zeros_like(inside).scatter(1, order, inside)
    is_off = (typical_p <= 0) | (typical_p >= 1)
    return torch.where(inside | is_off.unsqueeze(1), kept, 0.0)


def _adjusted(logits: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
    repetition = controls["repetition"].unsqueeze(1)
    repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
    return torch.where(controls["seen"], repeated, logits) + controls["bias"]


@dataclass(frozen=True)
class Draw:
    """What NumPy draws for the same uniforms: (batch,) each.

    margin: how far, in probability, the uniform lies from the nearest edge between two
    tokens; a draw within rounding of an edge may fall to either side.
    """

    token: Array
    log_probability: Array
    margin: Array


def draw_numpy(logits: Array, suppressed: Array, controls: Mapping[str, Array]) -> Draw:
    """The same draw in float64, row by row: what the graph is checked against."""
    rows = [
        _draw_row(logits[i].astype(np.float64), suppressed, controls, i) for i in range(len(logits))
    ]
    token, log_probability, margin = (np.array(column) for column in zip(*rows, strict=True))
    return Draw(token, log_probability, margin)


def _draw_row(
    logits: Array, suppressed: Array, controls: Mapping[str, Array], row: int
) -> tuple[int, float, float]:
    own = logits - np.logaddexp.reduce(logits)
    allowed = _adjusted_row(logits, controls, row) + suppressed
    temperature, top_p = float(controls["temperature"][row]), float(controls["top_p"][row])
    if temperature <= 0:
        token = int(allowed.argmax())
        ordered = np.sort(allowed)[::-1]
        return token, float(own[token]), float(ordered[0] - ordered[1])
    order = np.argsort(-allowed, kind="stable")[: int(controls["top_k"][row]) or len(allowed)]
    weights = np.exp((allowed[order] - allowed[order[0]]) / temperature)
    weights /= weights.sum()
    least = float(controls["min_p"][row]) * weights[0]
    before = weights.cumsum() - weights
    margins = [np.abs(before - top_p).min() if top_p < 1 else 1.0]
    margins.append(np.abs(weights[1:] - least).min(initial=1.0) if least else 1.0)
    inside = ((before < top_p) | (top_p >= 1)) & (weights >= least)
    order, weights = order[inside], weights[inside]
    typical_p = float(controls["typical_p"][row])
    if 0 < typical_p < 1:
        inside, margin = _typical_row(weights, typical_p)
        order, weights = order[inside], weights[inside]
        margins.append(margin)
    edges = weights.cumsum() / weights.sum()
    uniform = float(controls["uniform"][row])
    chosen = min(int((edges <= uniform).sum()), len(order) - 1)
    # Two equal logits at the edge of top-k may be distinguished by rounding alone.
    token = int(order[chosen])
    return token, float(own[token]), float(min(np.abs(edges - uniform).min(), *margins))


def _typical_row(weights: Array, typical_p: float) -> tuple[Array, float]:
    """Which of ``weights``, the largest first, are typical, and how clearly so: the distance
    in probability or in nats from where another set would be."""
    places = np.flatnonzero(weights)
    probability = weights[places] / weights.sum()
    surprise = -np.log(probability)
    distance = np.abs(surprise - (probability * surprise).sum())
    order = np.argsort(distance, kind="stable")
    before = probability[order].cumsum() - probability[order]
    count = int((before < typical_p).sum())
    gap = np.append(np.diff(distance[order]), 1.0)[count - 1]
    inside = np.zeros(len(weights), bool)
    inside[places[order[:count]]] = True
    return inside, float(min(np.abs(before - typical_p).min(), gap))


def _adjusted_row(logits: Array, controls: Mapping[str, Array], row: int) -> Array:
    repetition = float(controls["repetition"][row])
    repeated = np.where(logits > 0, logits / repetition, logits * repetition)
    adjusted: Array = np.where(controls["seen"][row], repeated, logits) + controls["bias"][row]
    return adjusted
