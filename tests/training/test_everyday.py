from types import SimpleNamespace

import pytest

from tests.training.real import real
from training.data.everyday import (
    FUNCTION_WORDS,
    LEAST_MEASURED,
    content_words,
    is_far_from_lecture,
    load_sentences,
    readable,
    split_sentences,
    words_of,
)
from training.data.wordnet import load_wordnet

DICTIONARY = SimpleNamespace(is_common=lambda word: word != "disney")


def test_sentences_are_of_readable_length_and_each_there_once():
    assert readable(["Hi there!", "It  rains all day.", "It rains all day.", "yes " * 41]) == [
        "It rains all day."
    ]


@pytest.mark.parametrize(
    "near",
    [
        "Yesterday the man went to the station.",
        "He had to purchase some medicines and bread.",
        "She went to the office to withdraw her application.",
        "We went to a mall to purchase shoes.",
    ],
)
def test_sentences_near_the_lectures_are_left_out(near):
    assert not is_far_from_lecture(words_of(near))
    assert not readable([near])


@pytest.mark.parametrize(
    "far", ["She went to the bank because she needed money.", "You can withdraw money there."]
)
def test_sentences_about_the_same_things_are_read(far):
    assert is_far_from_lecture(words_of(far))


def test_content_words_are_counted_without_names_and_small_words():
    texts = ["The dog saw the cat and Disney, the dog!", "A cat, a dog and a shit 4 dogs"]
    assert content_words(texts, DICTIONARY, 2) == ("dog", "cat")
    words = content_words(texts, DICTIONARY, 100)
    assert words == ("dog", "cat", "dogs")
    assert not FUNCTION_WORDS & set(words)


def test_a_sentence_is_in_one_split_whatever_stands_beside_it():
    sentences = [f"this sentence has a number of its own, {n}" for n in range(2_000)]
    splits = split_sentences(sentences)
    assert sorted(text for part in splits.values() for text in part) == sorted(sentences)
    for part in ("validation", "held-out"):
        assert 8 <= len(splits[part]) <= 40
        assert split_sentences(reversed(splits[part]))[part] == splits[part][::-1]


def test_short_sentences_train():
    splits = split_sentences([f"number {n} is short" for n in range(1_000)])
    assert len(splits["train"]) == 1_000


@pytest.mark.real_data
def test_the_packages_hold_half_a_million_sentences():
    sentences = real(lambda: load_sentences(load_wordnet()))
    assert len(sentences) > 500_000
    measured = split_sentences(sentences)["held-out"]
    assert min(len(words_of(text)) for text in measured) == LEAST_MEASURED
