"""The embedding of tokens that every model starts from."""

from __future__ import annotations

from torch import nn

from bundle.vocabulary import PADDING_ID

# PyTorch's own start, deviation 1, drowns what a rare word's few gradients say: with 0.1 the
# sentiment model and the bag of words found 5 and 18 points more on held-out sentences.
_DEVIATION = 0.1


def token_embedding(symbols: int, size: int) -> nn.Embedding:
    """``symbols`` rows of ``size``, normal around zero; padding's row is zero."""
    embedding = nn.Embedding(symbols, size, PADDING_ID)
    nn.init.normal_(embedding.weight, std=_DEVIATION)
    nn.init.zeros_(embedding.weight[PADDING_ID])
    return embedding
