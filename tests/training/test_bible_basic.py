import pytest

from tests.training.real import real
from training.data.bible_basic import (
    FUNCTION_WORDS,
    content_words,
    load_sentences,
    parse_sentences,
    read_text,
    split_sentences,
    words_of,
)

MODULE = """from package import Bible, Version
bible = Bible(Version.BASIC, '''At the first. And so on.''', {1: 0}, {1: 13})
"""
TEXT = (
    "At the first God made the heaven and the earth.\\43:1\\And the earth was waste and without "
    "form; and it was dark. So be it. *** And God said, Let there be light: and there was light!"
)


def test_the_text_is_read_without_importing_the_package():
    assert read_text(MODULE) == "At the first. And so on."


def test_sentences_are_of_readable_length_and_without_marks():
    assert parse_sentences(TEXT) == [
        "At the first God made the heaven and the earth.",
        "And the earth was waste and without form; and it was dark.",
        "And God said, Let there be light: and there was light!",
    ]


def test_content_words_are_counted_without_the_words_that_hold_a_sentence_together():
    assert content_words(parse_sentences(TEXT), 2) == ("earth", "god")
    assert not FUNCTION_WORDS & set(content_words(parse_sentences(TEXT), 100))


def test_every_sentence_is_in_one_split():
    splits = split_sentences([str(number) for number in range(100)])
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 85, "validation": 5, "held-out": 10,
    }  # fmt: skip
    assert len({s for part in splits.values() for s in part}) == 100


@pytest.mark.real_data
def test_the_real_text_has_the_known_size():
    sentences = real(load_sentences)
    assert len(sentences) == 21_462
    assert len({word for sentence in sentences for word in words_of(sentence)}) == 5_688
