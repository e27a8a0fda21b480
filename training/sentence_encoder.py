"""A transformer that others trained, with an output of its own: what teaches smaller models.

Only training knows it: there is no export of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu

from training.models.layers import length_mask

# What the parts of a layer are called among BERT's weights.
_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer_norm": "output.LayerNorm",
}
_EPSILON = 1e-12


@dataclass(frozen=True)
class SentenceClassifierConfig:
    """frozen_layers: the lowest ones, which stay as they are, as the embeddings do.
    dropout: share dropped before the output while training; drawing more of it takes longer than
    the products that it is drawn for.
    """

    labels: int
    heads: int = 12
    frozen_layers: int = 0
    dropout: float = 0.1


class SentenceClassifier(nn.Module):
    """Embeddings → transformer → mean over time → linear.

    As BERT is built (Devlin et al. 2019, arXiv:1810.04805), all in bfloat16 but the sums.
    weights: by BERT's names.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: SentenceClassifierConfig) -> None:
        super().__init__()
        self.config = config
        words, positions, kinds = (
            weights[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        size = words.shape[1]
        self.words = nn.Embedding.from_pretrained(words)
        # All of a text is of the first kind.
        self.positions = nn.Embedding.from_pretrained(positions + kinds[0])
        self.norm = nn.LayerNorm(size, _EPSILON)
        self.norm.load_state_dict(_part(weights, "embeddings.LayerNorm"))
        self.norm.requires_grad_(False)
        inner = weights["encoder.layer.0.intermediate.dense.weight"].shape[0]
        layers = sum(name.endswith("intermediate.dense.weight") for name in weights)
        self.layers = nn.ModuleList()
        for number in range(layers):
            layer = TransformerLayer(size, inner, config.heads)
            for part, name in _NAMES.items():
                whole = f"encoder.layer.{number}.{name}"
                layer.get_submodule(part).load_state_dict(_part(weights, whole))
            self.layers.append(layer.requires_grad_(number >= config.frozen_layers))
        self.output = nn.Linear(size, config.labels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time), lengths (batch,) → logits (batch, labels)"""
        inside = length_mask(tokens, lengths)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        with torch.autocast(tokens.device.type, torch.bfloat16):
            features = self.norm(self.words(tokens) + self.positions(places))
            for layer in self.layers:
                features = layer(features, inside[:, None, None])
        weights = inside.unsqueeze(2).float()
        mean = (features.float() * weights).sum(dim=1) / weights.sum(dim=1)
        return self.output(dropout(mean, self.config.dropout, self.training))


class TransformerLayer(nn.Module):
    """Self-attention, then two linear layers; each added to its input and normalised."""

    def __init__(self, size: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.attended, self.attended_norm = nn.Linear(size, size), nn.LayerNorm(size, _EPSILON)
        self.inner, self.outer = nn.Linear(size, inner), nn.Linear(inner, size)
        self.outer_norm = nn.LayerNorm(size, _EPSILON)

    def forward(self, inputs: Tensor, inside: Tensor) -> Tensor:
        """inputs (batch, time, size), inside (batch, 1, 1, time) → (batch, time, size)"""
        query, key, value = (
            part(inputs).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        # Over so few tokens times as fast as the fused attention, backwards above all.
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        found = scores.masked_fill(~inside, -torch.inf).softmax(dim=3).to(value) @ value
        inputs = self.attended_norm(inputs + self.attended(found.transpose(1, 2).flatten(2)))
        return self.outer_norm(inputs + self.outer(gelu(self.inner(inputs))))


def _part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")}
