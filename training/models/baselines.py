"""What the lecture weighs a recurrent network against, each a classifier with Classifier's call.

bag          bag of words: reads every word, and loses their order
window       moving window: keeps the order of the last words, and loses the others
convolution  one-dimensional convolution over time, its maximum kept (Kim 2014,
             arXiv:1408.5882, section 2, with tanh): order within a few neighbours
feedforward  weights of its own at each position: nothing shared, no longer text than it has
             positions; never exported
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bundle.manifest import CLASSIFY
from training.models.embedding import token_embedding
from training.models.layers import length_mask
from training.models.options import DesignInvalid

BAG, WINDOW, CONVOLUTION, FEEDFORWARD = "bag", "window", "convolution", "feedforward"
READERS = (BAG, WINDOW, CONVOLUTION, FEEDFORWARD)

# A tanh lies in [-1, 1], so this never wins a maximum.
_BELOW_ANY_TANH = -2.0


class TextTooLong(ValueError):
    """A text with more positions than a feed-forward network has weights for."""


@dataclass(frozen=True)
class BaselineConfig:
    """reader: one of READERS. embedding_size: numbers of a word, and of the tanh layer.

    width: words that a window or a convolution sees at once, positions that a feed-forward
    network has; 0 for a bag of words, which has neither.
    dropout: share dropped of what is embedded and of the features while training.

    Raises DesignInvalid for another reader, or a width that it cannot have.
    """

    architecture: ClassVar[str] = "baseline"
    task: ClassVar[str] = CLASSIFY
    reader: str
    vocabulary_size: int
    labels: int
    embedding_size: int
    width: int = 0
    dropout: float = 0.0

    @property
    def longest_text(self) -> int | None:
        """How many words a feed-forward network has weights for; None where any number is read."""
        return self.width if self.reader == FEEDFORWARD else None

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise DesignInvalid(f"reader {self.reader!r} is not one of {', '.join(READERS)}")
        if self.reader == BAG and self.width != 0:
            raise DesignInvalid(f"a bag of words has no width; leave {self.width} out")
        if self.reader != BAG and self.width < 1:
            raise DesignInvalid(f"the width of a {self.reader} reader is at least 1")


class Baseline(nn.Module):
    """Embedding → the reader's features → linear. ``build_baseline`` knows which reader."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = token_embedding(config.vocabulary_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.embedding_size, config.labels)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time), lengths (batch,) ≥ 1 → logits (batch, labels)"""
        return self.output(self.dropout(self.features(tokens, lengths)))

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (batch, time), lengths (batch,) → tanh layer (batch, embedding_size)"""
        raise NotImplementedError

    def embedded(self, tokens: Tensor, read: Tensor) -> Tensor:
        """tokens, read (batch, time) → (batch, time, embedding_size), zero where not read"""
        return self.dropout(self.embedding(tokens)).masked_fill(~read.unsqueeze(2), 0.0)


class BagOfWords(Baseline):
    """tanh(counts · embedding): the sum of a text's one-hot vectors times the matrix.

    Small whole numbers are exact in float32 in any order of addition, so neither the order of
    the words nor the padding can change a bit.
    """

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        # In a bundle a large table has half precision, in which no product is to be.
        table = self.embedding.weight.float()
        return torch.tanh(self.dropout(self.counts(tokens, lengths) @ table))

    def counts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """How often a text holds each id (batch, vocabulary); what is padding counts nothing."""
        once = length_mask(tokens, lengths).float()
        none = once.new_zeros((tokens.shape[0], self.config.vocabulary_size))
        return none.scatter_add(1, tokens, once)


class MovingWindow(Baseline):
    """The last ``width`` words' embeddings side by side, zeros where the text begins later."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.layer = nn.Linear(config.width * config.embedding_size, config.embedding_size)

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        width = self.config.width
        places = lengths.unsqueeze(1) + torch.arange(-width, 0, device=tokens.device)
        last = tokens.gather(1, places.clamp(min=0))
        return torch.tanh(self.layer(self.embedded(last, places >= 0).flatten(1)))


class Convolution(Baseline):
    """One layer over each ``width`` neighbours, the same everywhere, then the maximum over time.

    A text shorter than the window is one window, filled up with zeros.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.layer = nn.Linear(config.width * config.embedding_size, config.embedding_size)

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        windows = self.windows(self.embedded(tokens, length_mask(tokens, lengths)))
        starts = (lengths - (self.config.width - 1)).clamp(min=1)  # windows within the text
        features = torch.tanh(self.layer(windows))
        outside = ~length_mask(tokens, starts).unsqueeze(2)
        return features.masked_fill(outside, _BELOW_ANY_TANH).amax(dim=1)

    def windows(self, x: Tensor) -> Tensor:
        """x (batch, time, size) → each step and those after it (batch, time, width * size)"""
        width, time = self.config.width, x.shape[1]
        filled = pad(x, (0, 0, 0, width - 1))
        return torch.cat([filled.narrow(1, shift, time) for shift in range(width)], dim=2)


class FeedForward(Baseline):
    """h^t = tanh(f_t(x^t, h^(t-1))) with another f at each t: the lecture's "if f's are different".

    What it learns of a word at one position says nothing of that word at the next.

    Raises TextTooLong for a text of more than ``width`` words.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        size = config.embedding_size
        self.layers = nn.ModuleList(nn.Linear(2 * size, size) for _ in range(config.width))

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        self._check(int(lengths.max()))
        read = length_mask(tokens, lengths)
        x = self.embedded(tokens, read)
        h = x.new_zeros((x.shape[0], x.shape[2]))
        for layer, x_t, goes_on in zip(self.layers, x.unbind(1), read.unbind(1), strict=False):
            after = torch.tanh(layer(torch.cat((x_t, h), dim=1)))
            h = torch.where(goes_on.unsqueeze(1), after, h)
        return h

    def _check(self, longest: int) -> None:
        if longest > self.config.width:
            raise TextTooLong(
                f"a text has {longest} words, this feed-forward network has weights for "
                f"{self.config.width} positions; shorten the text or use another reader"
            )


_MODELS: dict[str, Callable[[BaselineConfig], Baseline]] = {
    BAG: BagOfWords,
    WINDOW: MovingWindow,
    CONVOLUTION: Convolution,
    FEEDFORWARD: FeedForward,
}


def build_baseline(config: BaselineConfig) -> Baseline:
    return _MODELS[config.reader](config)
