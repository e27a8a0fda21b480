"""Pieces of words learnt from texts: byte pair encoding, on characters.

Sennrich, Haddow and Birch 2016, arXiv:1508.07909. What is kept of it is the set of pieces: texts
are then cut by the longest match (bundle/tokenizer.py), which needs no order of merges.
"""

from __future__ import annotations

import heapq
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from bundle.tokenizer import WORD_BEGIN, Tokenizer
from bundle.vocabulary import Vocabulary

Neighbours = tuple[str, str]

# Words and marks; a mark that begins a word ("¿", "“") keeps the space before it.
_PART = re.compile(rf"{WORD_BEGIN}?\w+|{WORD_BEGIN}?[^\w\s{WORD_BEGIN}]")


def learn_pieces(
    texts: Sequence[str], count: int, lowercase: bool = False, has_markers: bool = False
) -> Tokenizer:
    """A tokenizer of ``count`` pieces at most, numbered by how often the texts hold each.

    Every character of the texts is a piece, so that none of theirs is unknown.
    """
    texts = [text.lower() for text in texts] if lowercase else texts
    words = Counter(WORD_BEGIN + word for text in texts for word in text.split())
    characters = dict.fromkeys(character for word in words for character in word)
    merged = merges_of(words, max(0, count - len(characters)))
    pieces = Tokenizer("pieces", Vocabulary((*characters, *merged)))
    seen = Counter(dict.fromkeys(characters, 0))
    for word, times in words.items():
        for piece in pieces.split(word.removeprefix(WORD_BEGIN)):
            seen[piece] += times
    order = sorted(seen, key=lambda piece: (-seen[piece], piece))
    return Tokenizer("pieces", Vocabulary(tuple(order), has_markers), lowercase)


def merges_of(words: Counter[str], count: int) -> list[str]:
    """The first ``count`` merges of the most frequent pair of neighbours, ties by the pair."""
    parts: Counter[str] = Counter()
    for word, times in words.items():
        for part in _PART.findall(word):
            parts[part] += times
    spelled = [(list(part), times) for part, times in parts.items()]
    pairs: Counter[Neighbours] = Counter()
    where: defaultdict[Neighbours, set[int]] = defaultdict(set)
    for number, (symbols, times) in enumerate(spelled):
        for pair in _neighbours(symbols):
            pairs[pair] += times
            where[pair].add(number)
    # A pair that has become rarer stays where it was until it comes up.
    ranked = [(-times, pair) for pair, times in pairs.items()]
    heapq.heapify(ranked)
    merged: dict[str, None] = {}
    while ranked and len(merged) < count:
        times, best = heapq.heappop(ranked)
        if pairs[best] != -times:
            if pairs[best] > 1:
                heapq.heappush(ranked, (-pairs[best], best))
            continue
        merged["".join(best)] = None
        for pair in _merge(best, spelled, pairs, where):
            heapq.heappush(ranked, (-pairs[pair], pair))
    return list(merged)


def _merge(
    best: Neighbours,
    spelled: Sequence[tuple[list[str], int]],
    pairs: Counter[Neighbours],
    where: defaultdict[Neighbours, set[int]],
) -> set[Neighbours]:
    """Join ``best`` wherever it stands; the pairs that this made."""
    made: set[Neighbours] = set()
    for number in sorted(where.pop(best)):
        symbols, times = spelled[number]
        for pair in _neighbours(symbols):
            pairs[pair] -= times
        symbols[:] = _joined(symbols, best)
        for pair in _neighbours(symbols):
            pairs[pair] += times
            where[pair].add(number)
            if "".join(best) in pair:
                made.add(pair)
    del pairs[best]
    return made


def _neighbours(symbols: Sequence[str]) -> Iterable[Neighbours]:
    return pairwise(symbols)


def _joined(symbols: Sequence[str], pair: Neighbours) -> list[str]:
    joined: list[str] = []
    place = 0
    while place < len(symbols):
        both = tuple(symbols[place : place + 2]) == pair
        joined.append("".join(pair) if both else symbols[place])
        place += 2 if both else 1
    return joined


def cut_at_random(
    tokenizer: Tokenizer, word: str, share: float, choose: random.Random
) -> list[str]:
    """The pieces of one word, each longer match passed over with probability ``share``.

    MaxMatch-Dropout (Hiraoka 2022, arXiv:2209.04126): a model that has read a word in many cuts
    knows what its parts mean. For training alone.
    """
    vocabulary = tokenizer.vocabulary
    marked = WORD_BEGIN + (word.lower() if tokenizer.lowercase else word)
    pieces, place = [], 0
    while place < len(marked):
        end = min(place + vocabulary.longest, len(marked))
        while end > place + 1 and (marked[place:end] not in vocabulary or choose.random() < share):
            end -= 1
        pieces.append(marked[place:end])
        place = end
    return pieces
