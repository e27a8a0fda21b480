"""A vocabulary as constraints need it: what each token adds to a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bundle.tokenizer import Tokenizer

Pairs = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Lexicon:
    """first, later: (token, its text) as the first of a text, and after others; first is empty
    where those are the same. Tokens without a text are none of a constrained text.

    size: ids that the vocabulary has. end_id: the token that ends a text, None for none.
    """

    first: Pairs
    later: Pairs
    size: int
    end_id: int | None
    is_characters: bool

    @classmethod
    def of(
        cls, codec: Tokenizer, size: int, end_id: int | None, never_sampled_ids: Iterable[int]
    ) -> Lexicon:
        left_out = {*never_sampled_ids, end_id}
        tokens = [token for token in range(size) if token not in left_out]
        first, later = (_pairs(codec, tokens, is_first) for is_first in (True, False))
        return cls(() if first == later else first, later, size, end_id, codec.kind == "characters")

    @cached_property
    def digest(self) -> str:
        """Of everything."""
        content = json.dumps([self.first, self.later, self.size, self.end_id])
        return hashlib.sha256(content.encode()).hexdigest()

    def without(self, tokens: Collection[int]) -> tuple[Pairs, Pairs]:
        """first and later, less ``tokens``."""
        if not tokens:
            return self.first, self.later
        first, later = (
            tuple(pair for pair in pairs if pair[0] not in tokens)
            for pairs in (self.first, self.later)
        )
        return first, later


def _pairs(codec: Tokenizer, tokens: Iterable[int], is_first: bool) -> Pairs:
    pairs = ((token, codec.piece(token, is_first)) for token in tokens)
    return tuple((token, text) for token, text in pairs if text and _is_whole(text))


def _is_whole(text: str) -> bool:
    """Half of a surrogate pair cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
