"""WordNet 3.0: what words mean, in a sentence each, with examples of their use.

Miller 1995, "WordNet: a lexical database for English". The files are read as wndb(5WN) has them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.debian import open_package, read_member
from training.data.packages import DATA_FOLDER, WORDNET

_FOLDER = "./usr/share/wordnet"
NOUN, VERB, ADJECTIVE, ADVERB = "noun", "verb", "adj", "adv"
PARTS_OF_SPEECH = (NOUN, VERB, ADJECTIVE, ADVERB)

# What is left of an inflected word, by part of speech, and what then follows it: morphy(7WN).
_SUFFIXES = {
    NOUN: (
        ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    VERB: (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
        ("ing", ""),
    ),
    ADJECTIVE: (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    ADVERB: (),
}  # fmt: skip
_EXAMPLE = re.compile(r'"([^"]+)"')
_FIELD = re.compile(r"^\([^)]*\)")  # at the beginning of a gloss: (botany)
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # of an adjective: where it may stand
# How the gloss of a word begins that nobody says in company.
_UNSEEMLY = re.compile(r"[^;]*\b(obscen\w+|vulgar|ethnic slur|offensive (?:term|name)s?)\b")


@dataclass(frozen=True)
class Synset:
    """One meaning. words: as they are written, an underscore between those of a compound.
    gloss: what they mean, without examples. is_instance: a name of one thing alone.
    """

    part_of_speech: str
    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...] = ()
    is_instance: bool = False

    @property
    def is_unseemly(self) -> bool:
        return bool(_UNSEEMLY.match(self.gloss))


@dataclass(frozen=True)
class WordNet:
    """senses: of each word in lower case and part of speech, the most frequent first.
    exceptions: base forms of inflected words that no rule finds.
    """

    synsets: tuple[Synset, ...]
    senses: dict[tuple[str, str], tuple[Synset, ...]]
    exceptions: dict[tuple[str, str], tuple[str, ...]]

    def senses_of(self, word: str) -> list[tuple[Synset, ...]]:
        """Of each of its parts of speech, the senses of ``word`` or its base forms."""
        found = []
        for part in PARTS_OF_SPEECH:
            bases = [word, *self.exceptions.get((word, part), ())]
            bases += [
                word.removesuffix(suffix) + ending
                for suffix, ending in _SUFFIXES[part]
                if word.endswith(suffix)
            ]
            found += [self.senses[base, part] for base in bases if (base, part) in self.senses]
        return found

    def is_common(self, word: str) -> bool:
        """Whether it is a word of the dictionary, not a name alone nor unseemly."""
        senses = self.senses_of(word)
        first = [of_part[0] for of_part in senses]
        return any(not synset.is_instance for of_part in senses for synset in of_part) and not any(
            synset.is_unseemly for synset in first
        )

    def examples(self) -> Iterator[str]:
        return (example for synset in self.synsets for example in synset.examples)

    def definitions(self, words: Collection[str]) -> Iterator[str]:
        """A sentence that says what a word means, for each meaning of each of ``words``, and of
        nouns another the other way round; for meanings of no such word, one of the first word.
        """
        for synset in self.synsets:
            defined = [word for word in synset.words if word.lower() in words]
            for word in defined or synset.words[:1]:
                yield from _definitions(synset, word.replace("_", " "))[: 2 if defined else 1]


def _definitions(synset: Synset, word: str) -> tuple[str, ...]:
    gloss = _FIELD.sub("", synset.gloss).split(";")[0]
    gloss = " ".join(gloss.replace("(", " ").replace(")", " ").split())
    if synset.part_of_speech == VERB:
        return (f"to {word} is to {gloss}",)
    if synset.part_of_speech != NOUN:
        return (f"{word} means {gloss}",)
    if synset.is_instance or word != word.lower():
        return (f"{word} is {gloss}",)
    article = "an" if word[0] in "aeiou" else "a"
    return f"{article} {word} is {gloss}", f"{gloss} is called {article} {word}"


def load_wordnet(data: Path = DATA_FOLDER) -> WordNet:
    with open_package(WORDNET.fetch(data).read_bytes()) as files:

        def read(name: str) -> list[str]:
            return read_member(files, f"{_FOLDER}/{name}").decode("latin1").splitlines()

        return parse_wordnet(
            {part: read(f"data.{part}") for part in PARTS_OF_SPEECH},
            {part: read(f"index.{part}") for part in PARTS_OF_SPEECH},
            {part: read(f"{part}.exc") for part in PARTS_OF_SPEECH},
        )


def parse_wordnet(
    data: dict[str, list[str]], index: dict[str, list[str]], exceptions: dict[str, list[str]]
) -> WordNet:
    """The lines of the three files of each part of speech."""
    synsets = {
        (line[:8], part): parse_synset(line, part)
        for part, lines in data.items()
        for line in _entries(lines)
    }
    senses = {}
    for part, lines in index.items():
        for line in _entries(lines):
            # lemma part synsets pointers … senses tagged offset offset …
            word, _, count, *rest = line.split()
            senses[word, part] = tuple(synsets[at, part] for at in rest[-int(count) :])
    irregular = {
        (inflected, part): tuple(bases)
        for part, lines in exceptions.items()
        for inflected, *bases in map(str.split, lines)
    }
    return WordNet(tuple(synsets.values()), senses, irregular)


def _entries(lines: list[str]) -> Iterator[str]:
    """Without those of the licence, which begin with two spaces."""
    return (line for line in lines if not line.startswith("  "))


def parse_synset(line: str, part_of_speech: str) -> Synset:
    """A line ``offset file type count word id word id … pointers | gloss; "example"``."""
    entry, _, text = line.partition(" | ")
    fields = entry.split()
    count = int(fields[3], 16)
    words = tuple(_MARKER.sub("", word) for word in fields[4 : 4 + 2 * count : 2])
    gloss = re.split(r';\s*"', text)[0].strip()
    examples = tuple(_EXAMPLE.findall(text[len(gloss) :]))
    return Synset(part_of_speech, words, gloss, examples, "@i" in fields[4 + 2 * count :])
