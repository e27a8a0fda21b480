import asyncio

import numpy as np
import pytest

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from service.engine.errors import WrongInput
from service.serving.tagger import TaggerModel, TagParams, tagged
from tests.service.engine.fakes import FakeThread, card

LABELS = ("at", "nn", "vb")


def label_by_id(item):
    """The label of a token is its id, modulo three."""
    rows = np.full((item.length, 3), 0.2, np.float32)
    rows[range(item.length), [token % 3 for token in item.tokens]] = 0.6
    return rows


@pytest.fixture
def tagger():
    reader = Tokenizer("words", Vocabulary(("the", "man", "went")), lowercase=True)
    return TaggerModel(
        card("pos", "tag", LABELS, {"input_tokens": 4}), reader, FakeThread(label_by_id)
    )


def tag(model, *all_params, top=0):
    return asyncio.run(model.tag(all_params, top))


def test_tokens_are_reported_as_they_were_sent(tagger):
    """The, man, went and the unknown are 1, 2, 3 and 4."""
    text, words = tag(tagger, TagParams("The MAN, went", ()), TagParams("", ("zz top", "the")))
    assert [(t.text, t.label, t.position) for t in text.tokens] == [
        ("The", "nn", 0),
        ("MAN", "vb", 1),
        (",", "nn", 2),
        ("went", "at", 3),
    ]
    assert [(t.text, t.label) for t in words.tokens] == [("zz top", "nn"), ("the", "nn")]
    assert (text.unknown_symbols, words.unknown_symbols) == (1, 1)
    assert [item.tokens for item in tagger.thread.items] == [(1, 2, 4, 3), (4, 1)]
    assert tagger.thread.released == 1


def test_equally_likely_labels_are_reported_in_their_order(tagger):
    (text,) = tag(tagger, TagParams("went", ()), top=20)
    (token,) = text.tokens
    assert [label for label, _ in token.top] == ["at", "nn", "vb"]
    assert token.top[0] == (token.label, token.probability)


def test_a_refused_item_runs_none_of_them(tagger):
    for params in (
        TagParams("", ()),
        TagParams("a", ("b",)),
        TagParams("a b c d e", ()),
        TagParams("", ("",)),
    ):
        with pytest.raises(WrongInput, match=r"items\[1\]"):
            tag(tagger, TagParams("the", ()), params)
    assert tagger.thread.items == []


def test_what_goes_on_keeps_its_positions():
    rows = np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)
    tokens = tagged(["a", "b"], rows, ("x", "y"), top=0, first=7)
    assert [(t.label, t.position) for t in tokens] == [("y", 7), ("x", 8)]
    assert tagged([], np.zeros((0, 2), np.float32), ("x", "y"), top=3) == []


def test_labels_of_spans_come_in_a_legal_order():
    """Where the likeliest label of each token would not be."""
    labels = ("O", "B-X", "I-X")

    def inside(item):
        return np.tile(np.array([[0.1, 0.3, 0.6]], np.float32), (item.length, 1))

    reader = Tokenizer("words", Vocabulary(("the",)))
    model = TaggerModel(card("ner", "tag", labels, {"input_tokens": 4}), reader, FakeThread(inside))
    (text,) = tag(model, TagParams("", ("a", "b")), top=1)
    assert [token.label for token in text.tokens] == ["B-X", "I-X"]
    assert [round(token.probability, 6) for token in text.tokens] == [0.3, 0.6]
    assert text.tokens[0].top == (("I-X", pytest.approx(0.6)),)
