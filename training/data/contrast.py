"""Sentences made by rule in which the order of the words decides: negation and contrast.

Few real sentences hold "not bad", so a model sees made ones too. Everything here is synthetic
and its figures are reported apart from real data's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.data.sentiment import NEGATIVE, POSITIVE, Example, is_far_from_lecture


@dataclass(frozen=True)
class WordList:
    """Things, and words that praise or blame them."""

    things: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]


TRAINING_WORDS = WordList(
    things=(
        "food", "movie", "film", "service", "story", "acting", "plot", "meal", "soup", "hotel",
        "room", "staff", "cast", "script", "ending", "pizza", "dinner", "book", "show", "coffee",
        "restaurant", "dialogue", "soundtrack", "camera", "waiter", "breakfast", "place",
    ),
    praise=(
        "good", "great", "excellent", "wonderful", "brilliant", "fantastic", "superb", "lovely",
        "delightful", "charming", "amazing", "perfect", "fresh", "funny", "clever", "awesome",
        "nice", "enjoyable", "impressive", "delicious",
    ),
    blame=(
        "bad", "terrible", "awful", "boring", "dull", "poor", "horrible", "disappointing", "weak",
        "bland", "dreadful", "stale", "mediocre", "tedious", "stupid", "annoying", "ugly", "cold",
        "slow", "lousy",
    ),
)  # fmt: skip

HELD_OUT_WORDS = WordList(
    things=("novel", "lunch", "concert", "performance", "salad", "album", "direction", "music"),
    praise=("fine", "beautiful", "outstanding", "terrific", "splendid", "entertaining"),
    blame=("silly", "lame", "flat", "pathetic", "forgettable", "worthless"),
)

_VERBS = ("was", "is")
_BOOSTS = ("", "", "", "really ", "that ", "very ", "so ")
_TAILS = ("in fact", "really", "actually", "in truth", "indeed", "to be honest", "if anything")
_SURPRISES = (
    "surprisingly given how high the scores of the {other} are",
    "despite all the high ratings of the {other}",
    "surprisingly instead of the praise for the {other} being high",
    "even though the reviews for the {other} were high",
    "whatever the ratings for the {other} say",
)

# More ways to say what decides: ``said`` is meant, ``opposite`` is not.
_VARIED = (
    "i thought the {thing} would be {opposite}, but it {verb} {said}",
    "{said}, not {opposite}: that {verb} the {thing}",
    "the {thing} {verb} hardly {opposite}",
    "the {thing} {verb} {said} and not at all {opposite}",
    "no one can say that the {thing} {verb} {opposite}",
    "the {thing} could not have been more {said}",
    "the {thing} {verb} less {opposite} than {said}",
    "instead of {opposite}, the {thing} {verb} {said}",
    "the {thing} {verb} never {opposite}, always {said}",
    "the {thing} isn't {opposite}, it's {said}",
    "i would not call the {thing} {opposite}",
    "it seemed {opposite} at first, then the {thing} {verb} {said}",
    "although people say that it is {opposite}, the {thing} {verb} {said}",
    "{opposite}? no, the {thing} {verb} {said}",
    "there {verb} nothing {opposite} about the {thing}",
    "more {said} than {opposite}, that {verb} the {thing}",
    "the {thing} only looks {opposite}, it {verb} {said}",
    "the {thing} {verb} so {said} that nobody would call it {opposite}",
    "i expected a {opposite} {thing} but got a {said} one",
    "unlike a {opposite} one, this {thing} {verb} {said}",
    "without ever being {opposite}, the {thing} {verb} {said}",
    "some find the {thing} {opposite}, to me it {verb} {said}",
    "the {thing} {verb} {said}, however {opposite} the start",
    "at no point {verb} the {thing} {opposite}",
)
# What a model is measured by and never trained on. The same words in another order mean the
# opposite, so that no bag of words can be right about both sentences of a pair.
_UNSEEN = (
    "the {thing} {verb} anything but {opposite}, truly {said}",
    "far from {opposite}, the {thing} {verb} {said}",
    "they called the {thing} {opposite}, yet it {verb} {said}",
    "{said} rather than {opposite}, so {verb} the {thing}",
    "the {thing} {verb} by no means {opposite}; it {verb} {said}",
    "we were told of a {opposite} {thing} and found a {said} one",
    "who says that the {thing} {verb} {opposite}? it {verb} {said}",
    "the {thing} {verb} {said} where others are {opposite}",
)


def make_sentence(words: WordList, choose: random.Random) -> Example:
    """One sentence of a random pattern; its label follows from the pattern and the words."""
    positive = choose.random() < 0.5
    said = choose.choice(words.praise if positive else words.blame)
    opposite = choose.choice(words.blame if positive else words.praise)
    thing, other = choose.sample(words.things, 2)
    start = f"the {thing} {choose.choice(_VERBS)}"
    boost = choose.choice(_BOOSTS)
    text = choose.choice(
        (
            f"{start} not {opposite}, {said} {choose.choice(_TAILS)}",
            f"{start} not {opposite}, {said} {choose.choice(_TAILS)}",
            f"{start} not {opposite} but {said}",
            f"{start} {said}, not {opposite} {choose.choice(_TAILS)}",
            f"{start} not {opposite} at all, {said} {choose.choice(_TAILS)}",
            f"{start} not {boost}{opposite}",
            f"{start}n't {boost}{opposite}",
            f"{start} {boost}{said}",
            f"{start} not {boost}{opposite}, " + choose.choice(_SURPRISES).format(other=other),
            f"{start} never {opposite}",
        )
    )
    return Example(text, POSITIVE if positive else NEGATIVE)


def make_sentences(words: WordList, count: int, seed: int) -> list[Example]:
    """``count`` different sentences, none near one of the lecture's."""
    choose = random.Random(seed)
    made: dict[str, Example] = {}
    while len(made) < count:
        example = make_sentence(words, choose)
        if is_far_from_lecture(example.text):
            made[example.text] = example
    return list(made.values())


def make_swapped_pairs(words: WordList, count: int, seed: int) -> list[tuple[Example, Example]]:
    """Pairs of the same words in another order with opposite labels (positive, negative)."""
    choose = random.Random(seed)
    pairs: dict[str, tuple[Example, Example]] = {}
    while len(pairs) < count:
        good, poor = choose.choice(words.praise), choose.choice(words.blame)
        start = f"the {choose.choice(words.things)} {choose.choice(_VERBS)}"
        tail = choose.choice(_TAILS)
        pair = (
            Example(f"{start} not {poor}, {good} {tail}", POSITIVE),
            Example(f"{start} not {good}, {poor} {tail}", NEGATIVE),
        )
        if all(is_far_from_lecture(example.text) for example in pair):
            pairs[pair[0].text] = pair
    return list(pairs.values())


def make_varied_sentences(words: WordList, count: int, seed: int) -> list[Example]:
    """``count`` different sentences, one in two in a way that make_sentences() does not know."""
    choose = random.Random(seed)
    made: dict[str, Example] = {}
    while len(made) < count:
        if choose.random() < 0.5:
            example = make_sentence(words, choose)
        else:
            example = choose.choice(_pair(words, choose.choice(_VARIED), choose))
        if is_far_from_lecture(example.text):
            made[example.text] = example
    return list(made.values())


def make_unseen_pairs(words: WordList, count: int, seed: int) -> list[tuple[Example, Example]]:
    """As make_swapped_pairs, but said in ways that no made sentence of training has."""
    choose = random.Random(seed)
    pairs: dict[str, tuple[Example, Example]] = {}
    while len(pairs) < count:
        pair = _pair(words, choose.choice(_UNSEEN), choose)
        if all(is_far_from_lecture(example.text) for example in pair):
            pairs[pair[0].text] = pair
    return list(pairs.values())


def _pair(words: WordList, template: str, choose: random.Random) -> tuple[Example, Example]:
    """(positive, negative)"""
    good, poor = choose.choice(words.praise), choose.choice(words.blame)
    named = {"thing": choose.choice(words.things), "verb": choose.choice(_VERBS)}
    return (
        Example(template.format(said=good, opposite=poor, **named), POSITIVE),
        Example(template.format(said=poor, opposite=good, **named), NEGATIVE),
    )
