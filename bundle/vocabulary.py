"""Numbers for symbols. Owns the order of a vocabulary; knows nothing of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bundle.errors import SymbolUnknown, VocabularyInvalid

PADDING_ID = 0

# What symbols of a listed vocabulary may be there for.
PAD, UNKNOWN, BEGIN, END = "pad", "unk", "bos", "eos"
ROLES = (PAD, UNKNOWN, BEGIN, END)


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
    def has_begin(self) -> bool:
        return self.has_markers

    @property
    def has_end(self) -> bool:
        return self.has_markers

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
        if "special" in content:
            roles = content["special"]
            if not isinstance(roles, Mapping):
                raise VocabularyInvalid(f"its special symbols are {roles!r}, not ids by role")
            special = tuple((role, int(place)) for role, place in roles.items())
            return ListedVocabulary(tuple(content["symbols"]), special=special)
        return cls(tuple(content["symbols"]), bool(content["has_markers"]))


@dataclass(frozen=True)
class ListedVocabulary(Vocabulary):
    """Symbols whose ids are their places, from 0 on: as a model from elsewhere was trained.

    special: (role of ROLES, id) of symbols that stand for no text. Where none is there for what is
    unknown, a symbol that is not listed cannot be read.

    Raises VocabularyInvalid when a symbol occurs twice, or a role or its id is none.
    """

    special: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        ids = {symbol: number for number, symbol in enumerate(self.symbols)}
        for role, place in self.special:
            if role not in ROLES or not 0 <= place < len(self.symbols):
                raise VocabularyInvalid(
                    f"special symbol {role!r} has the id {place}; roles are {', '.join(ROLES)}, "
                    f"ids 0 to {len(self.symbols) - 1}"
                )
            ids.pop(self.symbols[place], None)
        places = [place for _, place in self.special]
        if len({role for role, _ in self.special}) != len(self.special):
            raise VocabularyInvalid(f"a role of {self.special} is given twice")
        if len(set(places)) != len(places):
            raise VocabularyInvalid(f"an id of {self.special} is given twice")
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "has_markers", self.has_begin and self.has_end)

    def __len__(self) -> int:
        return len(self.symbols)

    def _place(self, role: str) -> int | None:
        return dict(self.special).get(role)

    @property
    def has_begin(self) -> bool:
        return self._place(BEGIN) is not None

    @property
    def has_end(self) -> bool:
        return self._place(END) is not None

    @property
    def begin_id(self) -> int:
        return self._needed(BEGIN)

    @property
    def end_id(self) -> int:
        return self._needed(END)

    def _needed(self, role: str) -> int:
        place = self._place(role)
        if place is None:
            raise VocabularyInvalid(f"this vocabulary has no symbol for {role!r}")
        return place

    @property
    def unknown_id(self) -> int:
        """-1 where no symbol is there for it."""
        place = self._place(UNKNOWN)
        return -1 if place is None else place

    @property
    def never_sampled_ids(self) -> tuple[int, ...]:
        return tuple(place for role, place in self.special if role != END)

    def id_of(self, symbol: str) -> int:
        """Raises SymbolUnknown for one that is not listed, where none is there for the unknown."""
        found = self._ids.get(symbol, self.unknown_id)
        if found < 0:
            raise SymbolUnknown(
                f"{symbol!r} is not in the vocabulary, which has no symbol for what it lacks"
            )
        return found

    def ids_of(self, symbols: Iterable[str]) -> list[int]:
        """As id_of, for each of them."""
        listed = list(symbols)
        ids = super().ids_of(listed)
        if self.unknown_id < 0 and -1 in ids:
            self.id_of(listed[ids.index(-1)])
        return ids

    def symbol_of(self, token: int) -> str:
        if token >= 0 and token == self.unknown_id:
            return "\N{REPLACEMENT CHARACTER}"
        is_text = 0 <= token < len(self.symbols) and token not in dict(self.special).values()
        return self.symbols[token] if is_text else ""

    def to_json(self) -> dict[str, Any]:
        return {"symbols": list(self.symbols), "special": dict(self.special)}
