"""Sentences of the Brown corpus, each word with its part of speech."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.data.packages import BROWN, DATA_FOLDER

Tagged = tuple[tuple[str, str], ...]  # the (word, tag) of one sentence

_SAMPLE = re.compile(r"package/c[a-r]\d\d")
_FOREIGN = "fw-"
# A word of a title, a headline or a quoted word: where it stands, not what it is.
_PLACE = re.compile(r"(?<=.)-(tl|hl|nc)")
_QUOTES = {"``": '"', "''": '"'}


def load_sentences(data: Path = DATA_FOLDER) -> list[Tagged]:
    """The 57,340 sentences of the 500 samples, in the order of their names."""
    with tarfile.open(BROWN.fetch(data)) as package:
        return [sentence for sample in _samples(package) for sentence in parse_sample(sample)]


def _samples(package: tarfile.TarFile) -> Iterator[str]:
    for name in sorted(filter(_SAMPLE.fullmatch, package.getnames())):
        member = package.extractfile(name)
        assert member is not None, f"{name} is not a file in the archive"
        yield member.read().decode("latin1")


def parse_sample(text: str) -> list[Tagged]:
    """One sentence a line of ``word/tag``; a word may hold a stroke itself.

    Quotes become the mark of ordinary text; their tags still say which side they open.
    """
    pairs = ([word.rsplit("/", 1) for word in line.split()] for line in text.splitlines())
    return [
        tuple((_QUOTES.get(word, word), plain_tag(tag)) for word, tag in line)
        for line in pairs
        if line
    ]


def plain_tag(tag: str) -> str:
    """The part of speech without the marks of foreign, title, headline and quoted words."""
    return _PLACE.sub("", tag.removeprefix(_FOREIGN))


def split_sentences(sentences: Sequence[Tagged]) -> dict[str, list[Tagged]]:
    """``held-out`` is every tenth sentence from the first; every twentieth ``validation``."""
    splits: dict[str, list[Tagged]] = {"train": [], "validation": [], "held-out": []}
    for number, sentence in enumerate(sentences):
        held_out, validates = number % 10 == 0, number % 20 == 5
        name = "held-out" if held_out else "validation" if validates else "train"
        splits[name].append(sentence)
    return splits
