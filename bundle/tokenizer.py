"""Text to token ids and back, the same in training, export and service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import ManifestInvalid
from bundle.vocabulary import Vocabulary

# A word keeps its inner apostrophe and hyphen ("isn't", "well-made"); every other mark that
# is not space is a token of its own.
_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")

KINDS = ("words", "characters", "symbols")


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text and how many of its symbols the vocabulary does not hold."""

    ids: list[int]
    unknown: int


@dataclass(frozen=True)
class Tokenizer:
    """Splits text into symbols and numbers them.

    kind: ``words`` (words and marks), ``characters``, or ``symbols`` (split at spaces).
    lowercase: texts are lowercased first.

    Raises ManifestInvalid for another kind.
    """

    kind: str
    vocabulary: Vocabulary
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ManifestInvalid(f"tokenizer kind {self.kind!r} is not one of {', '.join(KINDS)}")

    def split(self, text: str) -> list[str]:
        return split(self.kind, text, self.lowercase)

    def encode(self, text: str) -> Encoded:
        return self._numbered(self.split(text))

    def words_of(self, text: str) -> list[str]:
        """The symbols of ``text`` as they stand there; encode_words() numbers them."""
        return split(self.kind, text)

    def encode_words(self, words: Iterable[str]) -> Encoded:
        """Each word is one symbol, whatever it holds."""
        return self._numbered(word.lower() if self.lowercase else word for word in words)

    def _numbered(self, symbols: Iterable[str]) -> Encoded:
        ids = [self.vocabulary.id_of(symbol) for symbol in symbols]
        return Encoded(ids, ids.count(self.vocabulary.unknown_id))

    def longest_text(self, tokens: int) -> int:
        """Characters of the longest text worth reading where ``tokens`` are accepted.

        A text of characters has a token each; of other kinds, 64 a token is beyond any word.
        """
        return tokens if self.kind == "characters" else 64 * tokens

    def piece(self, token: int, first: bool) -> str:
        """The text one generated token adds; joined, the pieces of a stream are its text."""
        symbol = self.vocabulary.symbol_of(token)
        return symbol if first or not symbol or self.kind == "characters" else f" {symbol}"

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.piece(token, number == 0) for number, token in enumerate(ids))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "lowercase": self.lowercase}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
        return cls(content["kind"], vocabulary, bool(content["lowercase"]))


def split(kind: str, text: str, lowercase: bool = False) -> list[str]:
    """The symbols of ``text`` before they are numbered."""
    text = text.lower() if lowercase else text
    if kind == "words":
        return _WORD.findall(text)
    return list(text) if kind == "characters" else text.split()


def count_symbols(
    kind: str, texts: Iterable[str], lowercase: bool = False, cap: int | None = None
) -> Tokenizer:
    """A tokenizer over the symbols of ``texts``, numbered by frequency."""
    stream = (symbol for text in texts for symbol in split(kind, text, lowercase))
    return Tokenizer(kind, Vocabulary.count(stream, cap), lowercase)
