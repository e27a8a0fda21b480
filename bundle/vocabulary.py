"""Numbers for symbols. Owns the order of a vocabulary; knows nothing of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bundle.errors import VocabularyInvalid

PADDING_ID = 0


@dataclass(frozen=True)
class Vocabulary:
    """Symbols numbered from 1 by falling frequency, as in the lecture's one-hot encoding.

    Id 0 is padding and never a symbol. The markers ``begin`` and ``end``, where a model
    wants them, follow the symbols; the last id is the catch-all for everything unknown.

    Raises VocabularyInvalid when a symbol occurs twice.
    """

    symbols: tuple[str, ...]
    has_markers: bool = False
    _ids: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {symbol: number for number, symbol in enumerate(self.symbols, start=1)}
        if len(ids) != len(self.symbols):
            twice = [s for s, n in Counter(self.symbols).items() if n > 1]
            raise VocabularyInvalid(f"symbols occur twice in the vocabulary: {twice[:5]}")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def count(
        cls, stream: Iterable[str], cap: int | None = None, has_markers: bool = False
    ) -> Vocabulary:
        """Number the symbols of ``stream`` by frequency, ties by the symbol itself.

        cap: the highest id, which is the catch-all's; the rarest symbols fall to it.
        """
        counts = Counter(stream)
        order = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        markers = 2 if has_markers else 0
        kept = order if cap is None else order[: cap - 1 - markers]
        return cls(tuple(kept), has_markers)

    def __len__(self) -> int:
        """Rows of an embedding table over this vocabulary, padding included."""
        return self.unknown_id + 1

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ids

    @cached_property
    def longest(self) -> int:
        """Characters of the longest symbol."""
        return max(map(len, self.symbols), default=0)

    @property
    def begin_id(self) -> int:
        return self._marker(1)

    @property
    def end_id(self) -> int:
        return self._marker(2)

    @cached_property
    def unknown_id(self) -> int:
        return len(self.symbols) + (2 if self.has_markers else 0) + 1

    def _marker(self, offset: int) -> int:
        if not self.has_markers:
            raise VocabularyInvalid("this vocabulary has no begin and end markers")
        return len(self.symbols) + offset

    @property
    def never_sampled_ids(self) -> tuple[int, ...]:
        """Ids that stand for no symbol a model may say: padding, begin, the catch-all."""
        begin = (self.begin_id,) if self.has_markers else ()
        return (PADDING_ID, *begin, self.unknown_id)

    def id_of(self, symbol: str) -> int:
        return self._ids.get(symbol, self.unknown_id)

    def ids_of(self, symbols: Iterable[str]) -> list[int]:
        find, unknown = self._ids.get, self.unknown_id
        return [find(symbol, unknown) for symbol in symbols]

    def symbol_of(self, token: int) -> str:
        """The symbol behind an id; empty for padding and markers, � for the catch-all."""
        if 1 <= token <= len(self.symbols):
            return self.symbols[token - 1]
        return "\N{REPLACEMENT CHARACTER}" if token == self.unknown_id else ""

    def to_json(self) -> dict[str, Any]:
        return {"symbols": list(self.symbols), "has_markers": self.has_markers}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Vocabulary:
        return cls(tuple(content["symbols"]), bool(content["has_markers"]))
