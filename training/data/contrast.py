"""Sentences made by rule in which the order of the words decides: negation and contrast.

Those that train, those that choose and those that measure have words and ways of their own.

Few real sentences hold "not bad", so a model sees made ones too. Everything here is synthetic
and its figures are reported apart from real data's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.sentiment import NEGATIVE, POSITIVE, Example, is_far_from_lecture
from training.data.situations import make_situation


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

# Of pairs to choose by, before anything is measured.
VALIDATION_WORDS = WordList(
    things=("poem", "brunch", "opera", "jazz", "sandwich", "sculpture", "lecture", "dance"),
    praise=("gorgeous", "satisfying", "pleasant", "marvelous", "stunning", "tasty"),
    blame=("ghastly", "shoddy", "depressing", "miserable", "clumsy", "lifeless"),
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
# Sentences of two parts, each drawn: what is meant; what is denied; what others said of it.
_SUBJECTS = ("the {thing}", "the {thing}", "this {thing}", "that {thing}", "our {thing}", "it")
_MEANT = (
    "{subject} was {said}", "{subject} is {said}", "{subject} felt {said}",
    "{subject} turned out {said}", "{subject} proved to be {said}", "{subject} struck me as {said}",
    "{subject} has been {said} from start to finish", "i found {subject} {said}",
    "everybody found {subject} {said}", "{subject} is as {said} as they come",
    "it was a {said} {thing}", "what we got was {said}", "{subject} was {said} throughout",
    "{said} is the word for {subject}", "{subject} stayed {said} to the last minute",
    "i am still telling people how {said} {subject} was",
)  # fmt: skip
_DENIED = (
    "{subject} was not {opposite}", "{subject} isn't {opposite} at all",
    "{subject} wasn't the least bit {opposite}", "{subject} is nowhere near {opposite}",
    "{subject} was hardly {opposite}", "{subject} never felt {opposite}",
    "{subject} did not seem {opposite}", "nobody would describe {subject} as {opposite}",
    "i did not find {subject} {opposite}", "{subject} was not even remotely {opposite}",
    "it would be wrong to call {subject} {opposite}", "it was not a {opposite} {thing}",
    "nothing about {subject} was {opposite}", "{subject} doesn't strike me as {opposite}",
    "you cannot say that {subject} was {opposite}", "that was no {opposite} {thing}",
    "{subject} is not exactly {opposite}", "{subject} was not all that {opposite}",
    "{subject} has never been {opposite}", "in no way was {subject} {opposite}",
    "{subject} was not what i would call {opposite}", "{subject} was less {opposite} by the day",
)  # fmt: skip
_REPORTED = (
    "the reviews promised a {opposite} {thing}", "i was ready for a {opposite} {thing}",
    "people keep saying that {subject} is {opposite}", "on paper {subject} looks {opposite}",
    "from the outside {subject} seems {opposite}", "the first one was {opposite}",
    "the photos made {subject} look {opposite}", "last year {subject} was {opposite}",
    "my friends had promised that {subject} would be {opposite}", "{subject} used to be {opposite}",
    "{subject} sounds {opposite}", "{subject} has a name for being {opposite}",
    "the start was {opposite}", "we were afraid or hoping that {subject} would be {opposite}",
)  # fmt: skip
_JOINED = (
    "{meant}", "{denied}", "{denied}", "{denied}, {meant}", "{denied}. {meant}",
    "{meant}, {denied}", "{meant} and {denied}", "{denied}; {meant}", "{reported}, but {meant}",
    "{reported}. {meant}", "{meant}, although {reported}", "{meant}, even if {reported}",
    "{reported}, but {denied}", "{denied}, whatever they say", "while {reported}, {meant}",
    "{reported}; in fact {meant}", "{meant}. so much for {opposite}",
    "when it comes down to it, {meant}, not {opposite}",
)  # fmt: skip
_BEFORE = (
    "",
    "",
    "",
    "",
    "honestly, ",
    "to be fair, ",
    "i must say that ",
    "all in all ",
    "well, ",
)
_AFTER = ("", "", "", ".", " .", " !", ", believe me", " overall", ", if you ask me")

# Pairs to choose by. No made sentence of training has these ways, nor those below.
_VALIDATION = (
    "the {thing} {verb} every bit as {said} as the last one was {opposite}",
    "nobody had warned me how {said} a {opposite} looking {thing} can be",
    "it takes more than a {opposite} name to spoil a {said} {thing}",
    "who needs {opposite} when the {thing} {verb} {said}",
    "the {thing} {verb} the opposite of {opposite}, it {verb} {said}",
    "{opposite} is the last word that fits, {said} the first, for this {thing}",
    "i take back that the {thing} {verb} {opposite}: it {verb} {said}",
    "once {opposite}, now {said}: that {verb} the {thing}",
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
    """``count`` different sentences: a quarter each of make_sentence(), of its other ways, of two
    parts, and of situations (training/data/situations.py)."""
    choose = random.Random(seed)
    made: dict[str, Example] = {}
    while len(made) < count:
        example = choose.choice((make_sentence, _varied, _joined, _situation))(words, choose)
        if is_far_from_lecture(example.text):
            made[example.text] = example
    return list(made.values())


def _varied(words: WordList, choose: random.Random) -> Example:
    return choose.choice(_pair(words, choose.choice(_VARIED), choose))


def _situation(words: WordList, choose: random.Random) -> Example:
    return make_situation(choose)


def _joined(words: WordList, choose: random.Random) -> Example:
    parts = {
        "meant": choose.choice(_MEANT),
        "denied": choose.choice(_DENIED),
        "reported": choose.choice(_REPORTED),
        "opposite": "{opposite}",
    }
    template = choose.choice(_JOINED).format(**parts)
    template = choose.choice(_BEFORE) + template + choose.choice(_AFTER)
    subject = choose.choice(_SUBJECTS)
    return choose.choice(_pair(words, template.replace("{subject}", subject), choose))


def make_unseen_pairs(words: WordList, count: int, seed: int) -> list[tuple[Example, Example]]:
    """As make_swapped_pairs, but said in ways that no made sentence of training has."""
    return _pairs_of(_UNSEEN, words, count, seed)


def make_validation_pairs(count: int, seed: int) -> list[tuple[Example, Example]]:
    """As make_unseen_pairs, in other ways and of other words than those: to choose by."""
    return _pairs_of(_VALIDATION, VALIDATION_WORDS, count, seed)


def _pairs_of(
    templates: Sequence[str], words: WordList, count: int, seed: int
) -> list[tuple[Example, Example]]:
    choose = random.Random(seed)
    pairs: dict[str, tuple[Example, Example]] = {}
    while len(pairs) < count:
        pair = _pair(words, choose.choice(templates), choose)
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
