"""Logits processing of one request: bias, bans, and penalties that follow its output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.requests import Sampling

Row = NDArray[Any]


class LogitsProcessor:
    """The bias and seen rows of one stream.

    Every value is made from the request and the counts alone, never from the value before:
    a stream that paused or moved finds the same bits in a new row.

    prompt: tokens that count as seen for the repetition penalty. held_back: the end token,
    or None, that may not be drawn before ``min_tokens``.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Iterable[int],
        counts: Mapping[int, int],
        held_back: int | None,
        min_tokens: int,
    ) -> None:
        self.prompt = frozenset(prompt) if sampling.repetition_penalty != 1.0 else frozenset()
        self.counts = dict(counts)
        self.held_back = held_back
        self.min_tokens = min_tokens if held_back is not None else 0
        self._bias = dict(sampling.bias)
        self._allowed = frozenset(sampling.allowed)
        self._repeats = sampling.repetition_penalty != 1.0
        self._counts = sampling.counts_tokens
        self._presence, self._frequency = sampling.presence_penalty, sampling.frequency_penalty

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        prompt: Iterable[int],
        counts: Mapping[int, int],
        end_id: int | None,
        min_tokens: int,
    ) -> LogitsProcessor | None:
        """None for a request that adjusts nothing."""
        held_back = end_id if min_tokens else None
        if sampling.is_plain and not sampling.counts_tokens and held_back is None:
            return None
        return cls(sampling, prompt, counts, held_back, min_tokens)

    def fill(self, bias: Row, seen: Row, made: int) -> None:
        """Write both rows, (vocabulary,) each, for a stream that has made ``made`` tokens."""
        bias[:] = -np.inf if self._allowed else 0.0
        for token in {*self._allowed, *self._bias, *self.counts}:
            bias[token] = self._value(token, made)
        if self.held_back is not None:
            bias[self.held_back] = self._value(self.held_back, made)
        if self._repeats:
            seen[[*self.prompt, *self.counts]] = True

    def follow(self, token: int, bias: Row, seen: Row, made: int) -> None:
        """The stream drew ``token``, and has now made ``made`` tokens."""
        if self._counts:
            self.counts[token] = self.counts.get(token, 0) + 1
            bias[token] = self._value(token, made)
            seen[token] = self._repeats
        if made == self.min_tokens and self.held_back is not None:
            bias[self.held_back] = self._value(self.held_back, made)

    def _value(self, token: int, made: int) -> float:
        if (self._allowed and token not in self._allowed) or (
            token == self.held_back and made < self.min_tokens
        ):
            return -np.inf
        value = self._bias.get(token, 0.0)
        count = self.counts.get(token, 0)
        if count:
            value -= self._presence + count * self._frequency
        return value
