"""The draw of the next token: what it is, an operator for tracing, and its twin in NumPy.

Draws are by inverse transform: the tokens that may be drawn share the interval [0, 1) by their
weight, and a uniform number picks one. The cuts follow one another: temperature, top-k, top-p
(nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751), min-p, typical-p, each over what the
one before has left. Of equally probable tokens top-k and typical-p take those of the lower ids
first; top-p keeps or cuts them together.

A row without top-k and typical-p is drawn by rejection, as sorting-free samplers on GPUs do
(FlashInfer, 2025): a token among all, in the order of their ids, by ``uniform``; where the cuts do
not keep it, a second one among those that are more probable, by the first of ``retries``; where
they do not keep that one either, and in rows with top-k or typical-p, one among the kept, from the
most to the least probable, by the last of ``retries`` or by ``uniform``. Each of these has the same
distribution. The graph computes it by export/draw_nodes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import FunctionProto
from torch import Tensor

from export.draw_nodes import DRAW_INPUTS, draw_function
from export.operators import DRAW, DRAW_DOMAIN, draw_token
from export.opset import OPSET

Array = NDArray[Any]


def draw(logits: Tensor, suppressed: Tensor, controls: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """One token a row, and the model's own log-probability of it and of every token.

    logits: (batch, vocabulary). suppressed: (vocabulary,) 0, or -inf for ids never drawn.
    controls: a step graph's inputs by name, the parameters of bundle/sampling.py as columns of
    (batch,) among them. Beside these: uniform (batch,) and retries (batch, 2) in [0, 1); and of
    the rows whose logits are adjusted, adjusted (n,) which they are, seen (n, vocabulary) bool,
    the tokens that ``repetition`` makes less likely, and bias (n, vocabulary), added to the logits,
    -inf bans a token. Temperature 0 takes the lowest id among the most probable.

    Returns token (batch,) int64, its log-probability (batch,) and all log-probabilities
    (batch, vocabulary), all before penalties, bias, temperature and cuts.
    """
    known: tuple[Tensor, ...] = draw_token(
        logits, suppressed, *(controls[name] for name in DRAW_INPUTS[2:])
    )
    return known


def draw_functions(vocabulary: int) -> tuple[FunctionProto, ...]:
    """What a graph with a draw among so many tokens calls."""
    return (draw_function(DRAW_DOMAIN, DRAW, vocabulary, OPSET),)


def _draw_eagerly(logits: Tensor, suppressed: Tensor, *controls: Tensor) -> tuple[Tensor, ...]:
    arrays = dict(zip(DRAW_INPUTS[2:], (part.numpy() for part in controls), strict=True))
    twin = draw_numpy(logits.numpy(), suppressed.numpy(), arrays)
    log_probability = torch.from_numpy(twin.log_probability).to(logits.dtype)
    return torch.from_numpy(twin.token), log_probability, torch.log_softmax(logits, dim=1)


draw_token.register_kernel("cpu")(_draw_eagerly)


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
    places = {int(row): place for place, row in enumerate(controls["adjusted"])}
    rows = [
        _draw_row(logits[i].astype(np.float64), suppressed, controls, i, places.get(i))
        for i in range(len(logits))
    ]
    token, log_probability, margin = (np.array(column) for column in zip(*rows, strict=True))
    return Draw(token, log_probability, margin)


def _draw_row(
    logits: Array, suppressed: Array, controls: Mapping[str, Array], row: int, place: int | None
) -> tuple[int, float, float]:
    own = logits - np.logaddexp.reduce(logits)
    adjusted = logits if place is None else _adjusted_row(logits, controls, row, place)
    allowed = adjusted + suppressed
    temperature = float(controls["temperature"][row])
    if temperature <= 0:
        token = int(allowed.argmax())
        ordered = np.sort(allowed)[::-1]
        return token, float(own[token]), float(ordered[0] - ordered[1])
    scaled = (allowed - allowed.max()) / temperature
    weights = np.exp(scaled)
    weights /= weights.sum()
    cuts = _Cuts(
        int(controls["top_k"][row]), *(
            float(controls[name][row]) for name in ("top_p", "min_p", "typical_p")
        ),
    )  # fmt: skip
    uniforms = [float(controls["uniform"][row]), *(float(u) for u in controls["retries"][row])]
    token, margin = cuts.draw(weights, scaled, uniforms)
    return token, float(own[token]), margin


@dataclass(frozen=True)
class _Cuts:
    top_k: int
    top_p: float
    min_p: float
    typical_p: float

    def draw(self, weights: Array, scaled: Array, uniforms: list[float]) -> tuple[int, float]:
        """A token by ``weights`` (vocabulary,), which add up to 1, and how clearly it is that."""
        if 0 < self.top_k < len(weights) or 0 < self.typical_p < 1:
            return self._draw_ranked(weights, scaled, uniforms[0])
        candidates, margins = weights, []
        for uniform in uniforms[:2]:
            token, edge = _pick(candidates, uniform)
            more = np.where(scaled > scaled[token], weights, 0.0)
            kept, clear = self._keeps(float(weights[token]), weights, float(more.sum()))
            margins += [edge, clear]
            if kept:
                return token, min(margins)
            candidates = more
        token, margin = self._draw_ranked(weights, scaled, uniforms[2])
        return token, min(margin, *margins)

    def _keeps(self, own: float, weights: Array, above: float) -> tuple[bool, float]:
        """Whether top-p and min-p keep a token of weight ``own``, and how clearly.

        above: what the more probable ones weigh.
        """
        least = self.min_p * float(weights.max())
        margins = [abs(above - self.top_p)] if self.top_p < 1 else []
        margins += [abs(own - least)] if self.min_p > 0 else []
        kept = (above < self.top_p or self.top_p >= 1) and own >= least
        return kept, min(margins, default=1.0)

    def _draw_ranked(self, weights: Array, scaled: Array, uniform: float) -> tuple[int, float]:
        order = np.argsort(-scaled, kind="stable")[: self.top_k or len(scaled)]
        ranked, scaled = weights[order] / weights[order].sum(), scaled[order]
        before = ranked.cumsum() - ranked
        margins = [np.abs(before - self.top_p).min() if self.top_p < 1 else 1.0]
        inside = (before < self.top_p) | (self.top_p >= 1)
        inside = scaled >= scaled[inside].min()
        least = self.min_p * ranked[0]
        margins.append(np.abs(ranked[1:] - least).min(initial=1.0) if least else 1.0)
        inside &= ranked >= least
        order, ranked = order[inside], ranked[inside]
        if 0 < self.typical_p < 1:
            inside, margin = _typical_row(ranked, self.typical_p)
            order, ranked = order[inside], ranked[inside]
            margins.append(margin)
        place, edge = _pick(ranked / ranked.sum(), uniform)
        # Two equal logits at the edge of top-k may be distinguished by rounding alone.
        return int(order[place]), float(min(edge, *margins))


def _pick(weights: Array, uniform: float) -> tuple[int, float]:
    """The place that ``uniform`` picks by ``weights``, and how far it lies from the next edge."""
    edges = weights.cumsum() / weights.sum()
    place = min(int((edges <= uniform).sum()), int(np.flatnonzero(weights)[-1]))
    return place, float(np.abs(edges - uniform).min())


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


def _adjusted_row(logits: Array, controls: Mapping[str, Array], row: int, place: int) -> Array:
    repetition = float(controls["repetition"][row])
    repeated = np.where(logits > 0, logits / repetition, logits * repetition)
    seen, bias = controls["seen"][place], controls["bias"][place]
    adjusted: Array = np.where(seen, repeated, logits) + bias
    return adjusted
