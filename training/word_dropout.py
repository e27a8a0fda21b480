"""Words read as if the vocabulary lacked them, so that a model learns what to make of such."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bundle.tokenizer import Tokenizer


class WordDropout:
    """Each word goes with the chance ``strength`` / (``strength`` + its count): rare ones often.

    As in Kiperwasser and Goldberg 2016, arXiv:1603.04351. counts: of each word in training.
    """

    def __init__(self, tokenizer: Tokenizer, counts: Mapping[str, int], strength: float) -> None:
        vocabulary = tokenizer.vocabulary
        self.chance = torch.zeros(len(vocabulary))
        self.stand_in = torch.arange(len(vocabulary))
        words = [s for s in vocabulary.symbols if s in counts]
        for token, word in zip(map(vocabulary.id_of, words), words, strict=True):
            if strength:
                self.chance[token] = strength / (strength + counts[word])
                self.stand_in[token] = tokenizer.stand_in(word)

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens (…) → the same, other words dropped each time"""
        drawn = torch.rand(tokens.shape, device=tokens.device)
        chance, stand_in = (t.to(tokens.device) for t in (self.chance, self.stand_in))
        return torch.where(drawn < chance[tokens], stand_in[tokens], tokens)
