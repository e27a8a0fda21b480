"""English and Spanish verses of the same number, from two SWORD modules in Debian packages."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.debian import open_package, read_member
from training.data.packages import DATA_FOLDER, REINA_VALERA, WORLD_ENGLISH, DataPackage

MOST_WORDS = 20  # of a verse that is held out or validates

# (book, chapter, verse), such as ("Gen", 1, 1)
Place = tuple[str, int, int]

_MODULES = "./usr/share/sword/modules/texts/ztext"
_CHAPTER = re.compile(r'<chapter [^>]*osisID="(\w+)\.(\d+)"[^>]*sID=')
_NOT_TEXT = re.compile(r"<(note|title|speaker)\b.*?</\1>", re.DOTALL)
_BREAK = re.compile(r"</?(?:transChange|lg?|lb|item|div)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_BEFORE_MARK = re.compile(r" (?=[,.;:!?)\]’”])")
_AFTER_MARK = re.compile(r"(?<=[(¿¡“‘]) ")
# A chapter's first words in capitals: "EN el principio", "Y ACONTECIÓ".
_CAPITALS = re.compile(r"^(\W*)(\w )?([^\W\d_]{2,})\b")


@dataclass(frozen=True)
class Pair:
    """One verse in both languages."""

    english: str
    spanish: str


def load_pairs(data: Path = DATA_FOLDER) -> list[Pair]:
    """Every verse that both Bibles have, in the order of the Spanish one."""
    english = parse_verses(_read_module(WORLD_ENGLISH, "engWEB2015eb", data))
    spanish = parse_verses(_read_module(REINA_VALERA, "spaRV1909eb", data))
    return pair_up(english, without_capitals(spanish))


def pair_up(english: Mapping[Place, str], spanish: Mapping[Place, str]) -> list[Pair]:
    return [
        Pair(english[place], text) for place, text in spanish.items() if text and english.get(place)
    ]


def is_short(pair: Pair) -> bool:
    return len(pair.english.split()) <= MOST_WORDS


def split_pairs(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Of the short verses every tenth from the first is ``held-out``, every twentieth
    ``validation``; the others ``train``, and so do the longer verses.

    A verse whose English is that of a verse elsewhere may be in two of them.
    """
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "held-out": []}
    number = 0
    for pair in pairs:
        name = "train"
        if is_short(pair):
            name = {0: "held-out", 10: "held-out", 5: "validation"}.get(number % 20, "train")
            number += 1
        splits[name].append(pair)
    return splits


def parse_verses(entries: Sequence[str]) -> dict[Place, str]:
    """The text of each verse; ``entries`` as a module orders them, with their markup.

    An entry with a chapter's mark comes before its verses, which are numbered by their place:
    a verse that this Bible lacks has an empty entry. No table of chapters is needed.
    """
    verses: dict[Place, str] = {}
    book, chapter, verse = "", 0, 0
    for entry in entries:
        begins = _CHAPTER.findall(entry)
        if begins:
            (book, chapter), verse = (begins[-1][0], int(begins[-1][1])), 0
        elif book:
            verse += 1
            verses[book, chapter, verse] = plain_text(entry)
    return verses


def plain_text(entry: str) -> str:
    """Without footnotes, titles and markup, one space between words and none before marks."""
    text = _TAG.sub("", _BREAK.sub(" ", _NOT_TEXT.sub(" ", entry)))
    return _AFTER_MARK.sub("", _BEFORE_MARK.sub("", " ".join(text.split())))


def without_capitals(verses: Mapping[Place, str]) -> dict[Place, str]:
    """Each verse with the capitals of a chapter's first words written as elsewhere in the text."""
    words = Counter(word for text in verses.values() for word in re.findall(r"\w+", text))
    usual: dict[str, str] = {}
    for word, _ in words.most_common():
        if not word.isupper():
            usual.setdefault(word.upper(), word)

    def write(found: re.Match[str]) -> str:
        marks, letter, word = found.groups(default="")
        if not word.isupper():
            return found.group()
        word = usual.get(word, word.lower())
        return f"{marks}{letter}{word if letter else word[0].upper() + word[1:]}"

    return {place: _CAPITALS.sub(write, text) for place, text in verses.items()}


def read_testament(offsets: bytes, places: bytes, blocks: bytes) -> list[str]:
    """Every entry of one testament of a compressed module, from its three files.

    offsets (.bzs): where each zlib block begins, its size packed and unpacked. places (.bzv):
    each entry's block, and its place and size in it. blocks (.bzz).
    """
    books = [
        zlib.decompress(blocks[begin : begin + size])
        for begin, size, _ in struct.iter_unpack("<III", offsets)
    ]
    return [
        books[book][begin : begin + size].decode("utf8") if size else ""
        for book, begin, size in struct.iter_unpack("<IIH", places)
    ]


def _read_module(package: DataPackage, module: str, data: Path) -> list[str]:
    with open_package(package.fetch(data).read_bytes()) as files:
        return [
            entry
            for testament in ("ot", "nt")
            for entry in read_testament(
                *(read_member(files, f"{_MODULES}/{module}/{testament}.{end}") for end in _ENDS)
            )
        ]


_ENDS = ("bzs", "bzv", "bzz")
