"""A softmax over a few of many words, drawn anew for each batch: what training can afford."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

# Noise is drawn by the frequency to this power (Mikolov et al. 2013, arXiv:1310.4546).
_NOISE_POWER = 0.75


def noise_logits(counts: Counter[int], size: int) -> Tensor:
    """log of the chance to draw each of ``size`` ids as noise, -inf for what never occurs."""
    powers = torch.tensor([float(counts[token]) ** _NOISE_POWER for token in range(size)])
    return (powers / powers.sum()).log()


def sampled_cross_entropy(
    features: Tensor, targets: Tensor, words: Tensor, noise: Tensor, noise_logits: Tensor
) -> Tensor:
    """Mean -log p of ``targets`` among themselves and shared ``noise``: a softmax over few words.

    features (rows, size), targets (rows,), words (vocabulary, size), noise (draws,). Each score
    is corrected by how often noise draws its word (Bengio and Senecal 2003; Jean et al. 2015,
    arXiv:1412.2007).
    """
    own = (features * words[targets]).sum(dim=1) - noise_logits[targets]
    others = features @ words[noise].T - noise_logits[noise]
    others = others.masked_fill(noise.unsqueeze(0) == targets.unsqueeze(1), -torch.inf)
    scores = torch.cat((own.unsqueeze(1), others), dim=1)
    return cross_entropy(scores, torch.zeros_like(targets))
