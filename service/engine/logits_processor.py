"""Logits processing of one request: bias, bans, a constraint, and penalties that follow its
output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.automaton import ConstrainedText
from service.engine.requests import Sampling

Row = NDArray[Any]


class LogitsProcessor:
    """The bias and seen rows of one stream.

    Every value is made from the request and the counts alone, never from the value before:
    a stream that paused or moved finds the same bits in a new row.

    prompt: tokens that count as seen for the repetition penalty. held_back: the end token,
    or None, that may not be drawn before ``min_tokens``. text: where the stream is in its
    constraint, None for none; what ``sampling`` bans, that bans too.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Iterable[int],
        counts: Mapping[int, int],
        held_back: int | None,
        min_tokens: int,
        text: ConstrainedText | None = None,
    ) -> None:
        self.text = text
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
        text: ConstrainedText | None = None,
    ) -> LogitsProcessor | None:
        """None for a request that adjusts nothing."""
        held_back = end_id if min_tokens else None
        adjusts = not sampling.is_plain or sampling.counts_tokens or held_back is not None
        if not (adjusts or text):
            return None
        return cls(sampling, prompt, counts, held_back, min_tokens, text)

    def fill(self, bias: Row, seen: Row, made: int) -> None:
        """Write both rows, (vocabulary,) each, for a stream that has made ``made`` tokens."""
        if self.text:
            self._constrain(self.text, bias, made)
        else:
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
        if self.text:
            self.text = self.text.after(token)
            self._constrain(self.text, bias, made)
        elif made == self.min_tokens and self.held_back is not None:
            bias[self.held_back] = self._value(self.held_back, made)

    def _constrain(self, text: ConstrainedText, bias: Row, made: int) -> None:
        """The row of the constraint, with what is added to the logits of tokens that it allows."""
        text.fill(bias, made)
        for token in (*self._bias, *self.counts):
            if bias[token] == 0:
                bias[token] = self._value(token, made)

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
