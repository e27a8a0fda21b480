"""The draw of the next token, as nodes at the end of a step graph and as NumPy.

Draws are by inverse transform: the tokens that may be drawn, from the most to the least
probable, share the interval [0, 1) by their weight, and a uniform number picks one. Nucleus
(top-p) sampling is Holtzman et al. 2020, arXiv:1904.09751.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def draw(
    logits: Tensor,
    silent: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """One token a row and the model's own log-probability of it.

    logits: (batch, vocabulary). silent: (vocabulary,) 0, or -inf for ids never drawn.
    temperature, top_k, top_p, uniform: (batch,); temperature 0 takes the most probable token
    (the lowest id among equals), top_k 0 and top_p 1 leave every token.

    Returns token (batch,) int64 and log-probability (batch,), before temperature and cuts.
    """
    greedy = temperature <= 0
    scaled = (logits + silent) / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    vocabulary = logits.shape[1]
    ranked, tokens = torch.topk(scaled, vocabulary, dim=1)
    limit = torch.where(top_k > 0, top_k, vocabulary)
    limit = torch.where(greedy, 1, limit).unsqueeze(1)
    rank = torch.arange(vocabulary)
    weights = torch.softmax(ranked.masked_fill(rank >= limit, float("-inf")), dim=1)
    before = weights.cumsum(dim=1) - weights
    within = (before < top_p.unsqueeze(1)) | (top_p >= 1).unsqueeze(1)
    kept = (within | (rank == 0)).to(weights.dtype) * weights
    edges = kept.cumsum(dim=1)
    passed = (edges <= uniform.unsqueeze(1) * edges[:, -1:]).sum(dim=1)
    last = (kept > 0).sum(dim=1) - 1
    chosen = torch.minimum(passed, last).unsqueeze(1)
    token = tokens.gather(1, chosen)
    log_probability = torch.log_softmax(logits, dim=1).gather(1, token)
    return token.squeeze(1), log_probability.squeeze(1)


@dataclass(frozen=True)
class Draw:
    """What NumPy draws for the same uniforms: (batch,) each.

    margin: how far, in probability, the uniform lies from the nearest edge between two
    tokens; a draw within rounding of an edge may fall to either side.
    """

    token: Array
    log_probability: Array
    margin: Array


def draw_numpy(
    logits: Array, silent: Array, temperature: Array, top_k: Array, top_p: Array, uniform: Array
) -> Draw:
    """The same draw in float64, row by row: what the graph is checked against."""
    rows = [
        _draw_row(row.astype(np.float64), silent, t, int(k), p, u)
        for row, t, k, p, u in zip(logits, temperature, top_k, top_p, uniform, strict=True)
    ]
    token, log_probability, margin = (np.array(column) for column in zip(*rows, strict=True))
    return Draw(token, log_probability, margin)


def _draw_row(
    logits: Array, silent: Array, temperature: float, top_k: int, top_p: float, uniform: float
) -> tuple[int, float, float]:
    own = logits - np.logaddexp.reduce(logits)
    allowed = logits + silent
    if temperature <= 0:
        token = int(allowed.argmax())
        ordered = np.sort(allowed)[::-1]
        return token, float(own[token]), float(ordered[0] - ordered[1])
    order = np.argsort(-allowed, kind="stable")[: top_k or len(allowed)]
    weights = np.exp((allowed[order] - allowed[order[0]]) / temperature)
    weights /= weights.sum()
    before = weights.cumsum() - weights
    cut_margin = np.abs(before - top_p).min() if top_p < 1 else 1.0
    if top_p < 1:
        order, weights = order[before < top_p], weights[before < top_p]
    edges = weights.cumsum() / weights.sum()
    chosen = min(int((edges <= uniform).sum()), len(order) - 1)
    # Two equal logits at the edge of top-k may be told apart by rounding alone.
    token = int(order[chosen])
    return token, float(own[token]), float(min(np.abs(edges - uniform).min(), cut_margin))
