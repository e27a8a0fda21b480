"""Text to token ids and back, the same in training, export and service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import ManifestInvalid
from bundle.vocabulary import Vocabulary

# A word keeps its inner apostrophe and hyphen ("isn't", "well-made"); every other mark that
# is not space is a token of its own.
_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")

# What a piece that begins a word begins with, in place of the space before it.
WORD_BEGIN = "\N{LOWER ONE EIGHTH BLOCK}"

# Parts of a text that subwords are cut within: a word with the space before it, or other spaces.
_SPACED = re.compile(r" ?\S+|\s")

# What stands for words that the vocabulary lacks: their shape, then up to four last letters.
# No word or mark of a text looks like that.
_ENDING = re.compile(r"(Upper|lower|digit)(-hyphen)?:.*")
_LONGEST_ENDING = 4
_DIGIT = re.compile(r"\d")

KINDS = ("words", "characters", "symbols", "pieces", "endings", "subwords")
_CUT_BY_VOCABULARY = ("pieces", "subwords")


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text and how many of its symbols the vocabulary does not hold."""

    ids: list[int]
    unknown: int


@dataclass(frozen=True)
class Tokenizer:
    """Splits text into symbols and numbers them.

    kind: ``words`` (words and marks), ``endings`` (words, of which those that the vocabulary
        lacks are read as their shape and last letters), ``characters``, ``symbols`` (split at
        spaces), ``pieces`` (parts of words, each the longest that the vocabulary holds), or
        ``subwords`` (the same, with all spaces and line ends kept: a text comes back as it was).
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
        if self.kind in _CUT_BY_VOCABULARY:
            cut = split_into_pieces if self.kind == "pieces" else split_into_subwords
            return cut(text.lower() if self.lowercase else text, self.vocabulary)
        return split(self.kind, text, self.lowercase)

    def encode(self, text: str) -> Encoded:
        return self._numbered(self.split(text))

    def words_of(self, text: str) -> list[str]:
        """The symbols of ``text`` as they stand there; encode_words() numbers them.

        Pieces are those of the text as it is read, lowercased where that is.
        """
        return self.split(text) if self.kind in _CUT_BY_VOCABULARY else split(self.kind, text)

    def encode_words(self, words: Iterable[str]) -> Encoded:
        """Each word is one symbol, whatever it holds."""
        return self._numbered(word.lower() if self.lowercase else word for word in words)

    def _numbered(self, symbols: Iterable[str]) -> Encoded:
        if self.kind == "endings":
            return self._with_endings(symbols)
        ids = self.vocabulary.ids_of(symbols)
        return Encoded(ids, ids.count(self.vocabulary.unknown_id))

    def _with_endings(self, words: Iterable[str]) -> Encoded:
        ids, unknown = [], 0
        for word in words:
            known = word in self.vocabulary
            ids.append(self.vocabulary.id_of(word) if known else self.stand_in(word))
            unknown += not known
        return Encoded(ids, unknown)

    def stand_in(self, word: str) -> int:
        """The id that ``word`` is read as where the vocabulary lacks it."""
        if self.kind == "endings":
            for ending in endings(word):
                if ending in self.vocabulary:
                    return self.vocabulary.id_of(ending)
        return self.vocabulary.unknown_id

    @property
    def stand_ins(self) -> frozenset[int]:
        """The ids that no word of the vocabulary has, but words that it lacks."""
        symbols = self.vocabulary.symbols if self.kind == "endings" else ()
        found = (self.vocabulary.id_of(s) for s in symbols if _ENDING.fullmatch(s))
        return frozenset((*found, self.vocabulary.unknown_id))

    def longest_text(self, tokens: int) -> int:
        """Characters of the longest text worth reading where ``tokens`` are accepted.

        A text of characters has a token each; of other kinds, 64 a token is beyond any word.
        """
        return tokens if self.kind == "characters" else 64 * tokens

    def piece(self, token: int, first: bool) -> str:
        """The text one generated token adds; joined, the pieces of a stream are its text."""
        return self._written(self.vocabulary.symbol_of(token), first)

    def join(self, symbols: Sequence[str]) -> str:
        """The text of symbols as a model writes them."""
        return "".join(self._written(symbol, at == 0) for at, symbol in enumerate(symbols))

    def _written(self, symbol: str, first: bool) -> str:
        if self.kind == "subwords":
            return symbol.replace(WORD_BEGIN, " ")
        if self.kind == "pieces":
            return symbol.removeprefix(WORD_BEGIN) if first else symbol.replace(WORD_BEGIN, " ")
        return symbol if first or not symbol or self.kind == "characters" else f" {symbol}"

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.piece(token, number == 0) for number, token in enumerate(ids))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "lowercase": self.lowercase}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
        return cls(content["kind"], vocabulary, bool(content["lowercase"]))


def split(kind: str, text: str, lowercase: bool = False) -> list[str]:
    """The symbols of ``text`` before they are numbered, for kinds that need no vocabulary."""
    text = text.lower() if lowercase else text
    if kind in ("words", "endings"):
        return _WORD.findall(text)
    return list(text) if kind == "characters" else text.split()


def endings(word: str) -> Iterator[str]:
    """What may stand for ``word``, the most telling first: its shape with 4 to 0 last letters.

    ``Upper:ford`` for Oxford, ``lower-hyphen:made`` for well-made, ``digit:000s`` for 1920s. As
    in tagging by suffixes (Brants 2000, arXiv:cs/0003055, section 2.3).
    """
    shape = "digit" if _DIGIT.search(word) else "Upper" if word[:1].isupper() else "lower"
    hyphen = "-hyphen" if "-" in word else ""
    letters = _DIGIT.sub("0", word.lower())
    for count in range(min(_LONGEST_ENDING, len(letters)), -1, -1):
        yield f"{shape}{hyphen}:{letters[len(letters) - count :]}"


def split_into_pieces(text: str, vocabulary: Vocabulary) -> list[str]:
    """Each word from the left, the longest piece that ``vocabulary`` holds at each place.

    A character that no piece begins with is a symbol by itself, and unknown. Longest match first,
    as in WordPiece (Song et al. 2021, arXiv:2012.15524), needs the pieces and no order of theirs.
    """
    return [piece for word in text.split() for piece in _longest(WORD_BEGIN + word, vocabulary)]


def split_into_subwords(text: str, vocabulary: Vocabulary) -> list[str]:
    """As split_into_pieces, but that nothing of the text is lost.

    The space before a word is its WORD_BEGIN; a word at the beginning of a text or line has none.
    Other spaces and line ends are symbols by themselves.
    """
    return [piece for part in spaced_parts(text) for piece in _longest(part, vocabulary)]


def spaced_parts(text: str) -> list[str]:
    """What subwords are cut within; joined, with spaces for WORD_BEGIN, they are the text."""
    return [part.replace(" ", WORD_BEGIN) for part in _SPACED.findall(text)]


def _longest(part: str, vocabulary: Vocabulary) -> list[str]:
    pieces, place = [], 0
    while place < len(part):
        ends = range(min(place + vocabulary.longest, len(part)), place, -1)
        end = next((end for end in ends if part[place:end] in vocabulary), place + 1)
        pieces.append(part[place:end])
        place = end
    return pieces


def count_symbols(
    kind: str, texts: Iterable[str], lowercase: bool = False, cap: int | None = None
) -> Tokenizer:
    """A tokenizer over the symbols of ``texts``, numbered by frequency."""
    stream = (symbol for text in texts for symbol in split(kind, text, lowercase))
    return Tokenizer(kind, Vocabulary.count(stream, cap), lowercase)
