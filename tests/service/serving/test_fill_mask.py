import asyncio

import numpy as np
import pytest

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from service.engine.errors import WrongInput
from service.serving.fill_mask import FillModel, Markers
from tests.service.engine.fakes import FakeThread, card

WORDS = ("the", "man", "went", "to")  # 1 to 4
BEGIN, END, UNKNOWN = 5, 6, 7
CANDIDATES = tuple(f"word{number}" for number in range(8))
PROBABILITIES = np.array([0.1, 0.2, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1], np.float32)


@pytest.fixture
def model():
    reader = Tokenizer("words", Vocabulary(WORDS, has_markers=True), lowercase=True)
    thread = FakeThread(lambda item: PROBABILITIES)
    limits = {"input_tokens": 4}
    return FillModel(card("cloze", "fill", CANDIDATES, limits), reader, Markers(BEGIN, END), thread)


def fill(model, *texts, top=0):
    return asyncio.run(model.fill(texts, top))


def test_both_sides_are_read_towards_the_blank(model):
    fill(model, "The man ___ to the", "___ went", "went______", "x___y")
    read = [(item.tokens, item.right) for item in model.thread.items]
    assert read == [
        ((BEGIN, 1, 2), (END, 1, 4)),
        ((BEGIN,), (END, 3)),
        ((BEGIN, 3), (END,)),
        ((BEGIN, UNKNOWN), (END, UNKNOWN)),
    ]


def test_equally_likely_words_are_reported_in_their_order(model):
    (blank,) = fill(model, "the zz ___")
    assert [word for word, _ in blank.words] == ["word1", "word3", "word0", "word2", "word4"]
    assert (blank.input_tokens, blank.unknown_symbols) == (2, 1)
    (all_of_them,) = fill(model, "___", top=100)
    assert [word for word, _ in all_of_them.words[5:]] == ["word5", "word6", "word7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the man", "has no blank"),
        ("the __ man", "has no blank"),
        ("___ the ___", "has 2 blanks"),
        ("the man ___ went to the", r"has 5 tokens, model 'cloze' accepts 4"),
    ],
)
def test_a_text_has_one_blank_and_so_many_words(model, text, message):
    with pytest.raises(WrongInput, match=rf"texts\[1\] {message}"):
        fill(model, "___", text)
    assert model.thread.items == []
