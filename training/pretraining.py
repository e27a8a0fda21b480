"""A classifier's encoder learns its language first: which words stand after and before which.

Dai and Le 2015, arXiv:1511.01432: an encoder that has read unlabelled reviews as a language model
classifies short reviews better. Here both directions learn at once, from texts without labels.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from training.batching import similar_lengths
from training.models.classifier import Classifier
from training.models.options import DesignInvalid
from training.sampled_softmax import noise_logits, sampled_cross_entropy

Batch = tuple[Tensor, Tensor]  # tokens (batch, time), lengths (batch,)


class LanguageReader(nn.Module):
    """A classifier's embedding and recurrent layer, with a linear map a direction back to words.

    The direction from the left says the word after each, the one from the right that before it.

    Raises DesignInvalid for an encoder whose directions see each other's words.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        options = classifier.config.recurrent
        if not options.bidirectional or options.layers > 1 or options.output_mlp:
            raise DesignInvalid("pretraining is for one bidirectional layer without output_mlp")
        self.embedding = classifier.embedding
        self.dropout = classifier.dropout
        self.stack = classifier.stack
        size = (options.hidden_size, classifier.config.embedding_size)
        self.after, self.before = nn.Linear(*size), nn.Linear(*size)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (batch, time), lengths → what is expected after and before each token,
        (batch, time, embedding_size) each, to be compared with the embeddings of words.
        """
        features = self.stack.read(self.dropout(self.embedding(tokens)), lengths)
        forward, backward = self.dropout(features).chunk(2, dim=2)
        return self.after(forward), self.before(backward)


@dataclass(frozen=True)
class LanguageTask:
    """texts: token ids, a text each, of which every ``validation``-th validates.

    draws: of noise for each batch.
    """

    texts: Sequence[Sequence[int]]
    vocabulary_size: int
    seed: int
    batch: int
    draws: int
    validation: int = 50

    def batches(self, epoch: int) -> list[Batch]:
        training = [text for n, text in enumerate(self.texts) if n % self.validation]
        return self._batches(training, random.Random(self.seed * 10_007 + epoch))

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return self._batches(self.texts[:: self.validation], random.Random(0))

    def _batches(self, texts: Sequence[Sequence[int]], choose: random.Random) -> list[Batch]:
        texts = [text for text in texts if len(text) > 1]
        grouped = similar_lengths(texts, len, self.batch, choose)
        return [
            (
                pad_sequence([torch.tensor(row) for row in rows], batch_first=True),
                torch.tensor([len(row) for row in rows]),
            )
            for rows in grouped
        ]

    @cached_property
    def _noise_logits(self) -> Tensor:
        counts = Counter(token for text in self.texts for token in text)
        return noise_logits(counts, self.vocabulary_size)

    def loss(self, model: LanguageReader, batch: Batch, carry: None) -> tuple[Tensor, None]:
        chances = self._noise_logits.exp()
        noise = torch.multinomial(chances, self.draws, replacement=True)
        return self._nats(model, batch, noise), None

    def validate(self, model: LanguageReader) -> float:
        draw = torch.Generator().manual_seed(0)
        chances = self._noise_logits.exp()
        noise = torch.multinomial(chances, self.draws, replacement=True, generator=draw)
        losses = [self._nats(model, batch, noise).item() for batch in self._validation_batches]
        return sum(losses) / len(losses)

    def _nats(self, model: LanguageReader, batch: Batch, noise: Tensor) -> Tensor:
        tokens, lengths = batch
        after, before = model(tokens, lengths)
        inside = torch.arange(1, tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)
        words, chances = model.embedding.weight, self._noise_logits.to(tokens.device)
        noise = noise.to(tokens.device)
        features = torch.cat((after[:, :-1][inside], before[:, 1:][inside]))
        targets = torch.cat((tokens[:, 1:][inside], tokens[:, :-1][inside]))
        return sampled_cross_entropy(features, targets, words, noise, chances)
