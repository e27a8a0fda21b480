"""Fill over real channels."""

import re

import pytest

from tests.tiny import WORDS
from unroll.v1 import unroll_pb2 as pb

TEXTS = [
    "the food is ___",
    "____ is bad, not good",
    "the food ___ the food was not great, the food was bad",
    "___",
]


def test_each_blank_gets_the_likeliest_words(caller):
    """Input tokens are the words of both sides."""
    blanks = caller.fill("blank", TEXTS)
    assert [blank.input_tokens for blank in blanks] == [3, 5, 12, 0]
    for blank in blanks:
        words, probabilities = zip(*blank.words, strict=True)
        assert sorted(words) == sorted(WORDS[:4]), "there are fewer than the five of the default"
        assert sum(probabilities) == pytest.approx(1)
        assert list(probabilities) == sorted(probabilities, reverse=True)


def test_a_text_gets_the_same_bits_alone_and_among_others(caller):
    """Sides of other lengths beside it change nothing."""
    together = caller.fill("blank", TEXTS)
    assert together == [caller.fill("blank", [text])[0] for text in TEXTS]


def test_both_sides_count_and_so_does_their_order(caller):
    texts = ["the food ___ not bad", "food the ___ not bad", "the food ___ bad not", "bad ___ the"]
    reported = {tuple(blank.words) for blank in caller.fill("blank", texts)}
    assert len(reported) == len(texts)


def test_as_many_words_are_reported_as_were_asked_for(caller):
    (two,) = caller.fill("blank", ["the ___"], top=2)
    (every,) = caller.fill("blank", ["the ___"], top=100)
    assert two.words == every.words[:2]


def test_a_blank_needs_no_space_and_texts_are_read_in_lower_case(caller):
    plain, close, loud = caller.fill("blank", ["food ___ bad", "food___bad", "FOOD ______ Bad"])
    assert plain == close == loud


def test_unknown_words_are_counted_on_both_sides(caller):
    (blank,) = caller.fill("blank", ["zebra ___ is zzz"])
    assert (blank.input_tokens, blank.unknown_symbols) == (3, 2)


def test_a_model_says_what_it_chooses_among(caller):
    model = caller.get_model("blank")
    assert (model.task, tuple(model.labels)) == (pb.TASK_FILL, WORDS[:4])


REFUSED = {
    "nothing": ([], {}, "texts holds 0 entries"),
    "no blank": (["___", "the __ food"], {}, r"texts\[1\] has no blank; mark the word to fill in"),
    "two blanks": (["___ is ___"], {}, r"texts\[0\] has 2 blanks"),
    "too many tokens": (
        ["a " * 40 + "___" + " a" * 25],
        {},
        r"texts\[0\] has 65 tokens, model 'blank' accepts 64",
    ),
    "too long": (["a" * 5000 + " ___"], {}, r"texts\[0\] has 5004 characters"),
    "too many words": (["___"], {"top_words": 101}, "top_words is 101; choose up to 100"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_filled_is_refused_and_says_what_to_do(refusal, case):
    texts, others, message = REFUSED[case]
    assert re.search(message, refusal("Fill", pb.FillRequest(model="blank", texts=texts, **others)))
