"""What tasks that read or write texts choose by their texts: tokens, vocabularies, limits."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import Vocabulary
from training.bpe import learn_pieces

WORDS, CHARACTERS, PIECES = "words", "characters", "pieces"
SYMBOLS = "symbols"  # what stands between spaces

MOST_WORDS = 30_000
_SHORT = 24  # characters of a text that is read character by character
_MOST_UNKNOWN = 0.3  # of the words of other texts


def choose_reader(train: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
    """Words or characters for texts that are read, and why.

    Characters where texts are a word or two, as names are, and where words are no help: others
    than those that were trained on keep coming, as without spaces between them.
    """
    words = statistics.median(len(split(WORDS, text)) for text in train)
    if words <= 2:
        return CHARACTERS, "texts are a word or two"
    counts = Counter(word for text in train for word in split(WORDS, text, lowercase=True))
    found = [word for text in others for word in split(WORDS, text, lowercase=True)]
    unknown = sum(counts[word] < 2 for word in found) / max(1, len(found))
    if unknown > _MOST_UNKNOWN:
        return CHARACTERS, f"{unknown:.0%} of the words of other rows are unknown"
    return WORDS, f"{unknown:.0%} of the words of other rows are unknown"


def choose_writer(texts: Sequence[str]) -> tuple[str, str]:
    """Characters or pieces of words for texts that are written, and why."""
    length = statistics.median(map(len, texts))
    if length <= _SHORT:
        return CHARACTERS, f"half of the texts have {length:g} characters at most"
    return PIECES, f"half of the texts have more than {length:g} characters"


def count_vocabulary(symbols: Iterable[str], most: int, has_markers: bool = False) -> Vocabulary:
    """Symbols by falling frequency, ``most`` ids at most. What occurs once is left out where
    enough is left: it is what trains the catch-all."""
    counts = Counter(symbols)
    order = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    often = [symbol for symbol in order if counts[symbol] > 1]
    kept = often if 2 * len(often) > len(order) or len(often) > 1_000 else order
    return Vocabulary(tuple(kept[: most - 2 - 2 * has_markers]), has_markers)


def make_tokenizer(
    kind: str, texts: Sequence[str], most: int, lowercase: bool = False, has_markers: bool = False
) -> Tokenizer:
    """A tokenizer of one of these kinds over ``texts``, of ``most`` ids at most."""
    if kind == PIECES:
        return learn_pieces(texts, most, lowercase, has_markers)
    symbols = (symbol for text in texts for symbol in split(kind, text, lowercase))
    return Tokenizer(kind, count_vocabulary(symbols, most, has_markers), lowercase)


def pieces_for(texts: Sequence[str]) -> int:
    """How many pieces texts are worth: one for some 40 characters, 4,000 at most."""
    return min(4_000, max(200, sum(map(len, texts)) // 40))


def limit_for(lengths: Sequence[int], most: int) -> int:
    """Of tokens: half as long again as the longest row, 32 at least and ``most`` at most."""
    return min(most, max(32, round(1.5 * max(lengths) / 16 + 0.5) * 16))


def length_facts(lengths: Sequence[int], limit: int) -> str:
    """For people."""
    longer = sum(length > limit for length in lengths)
    cut = f", {longer:,} rows are longer" if longer else ""
    return (
        f"{statistics.median(lengths):g} tokens in the middle, {max(lengths):,} at most; "
        f"limit {limit:,}{cut}"
    )
