"""Tag over real channels."""

import re

import pytest

from tests.tiny import TAGS
from unroll.v1 import unroll_pb2 as pb

MODELS = ["tags", "tags-online"]
TEXTS = ["The food is GOOD", "bad", "not bad, was it?", "the " * 64]


@pytest.mark.parametrize("model", MODELS)
def test_each_token_of_each_text_gets_a_label(caller, model):
    answers = caller.tag(model, TEXTS)
    assert [token.text for token in answers[0].tokens] == ["The", "food", "is", "GOOD"]
    assert [token.text for token in answers[2].tokens] == ["not", "bad", ",", "was", "it", "?"]
    assert len(answers[3].tokens) == 64
    for answer in answers:
        assert [token.position for token in answer.tokens] == list(range(len(answer.tokens)))
        assert {token.label for token in answer.tokens} <= set(TAGS)
        assert all(1 / len(TAGS) <= token.probability <= 1 for token in answer.tokens)
        assert all(token.top == () for token in answer.tokens)


@pytest.mark.parametrize("model", MODELS)
def test_a_text_gets_the_same_bits_alone_and_among_others(caller, model):
    together = caller.tag(model, TEXTS, top=5)
    assert together == [caller.tag(model, [text], top=5)[0] for text in TEXTS]


def test_words_are_tokens_whatever_they_hold(caller):
    """And read in lower case where texts are."""
    text, words, odd = caller.tag(
        "tags", ["the Food is", ["the", "Food", "is"], ["a b", "don't!", "the"]]
    )
    assert words == text
    assert [token.text for token in odd.tokens] == ["a b", "don't!", "the"]
    assert odd.unknown_symbols == 2


def test_unknown_tokens_are_counted(caller):
    (answer,) = caller.tag("tags", ["the zebra is zzz ."])
    assert answer.unknown_symbols == 3


def test_the_likeliest_labels_are_reported_when_asked_for(caller):
    (plain,) = caller.tag("tags", ["the food is bad"])
    (two,) = caller.tag("tags", ["the food is bad"], top=2)
    (every,) = caller.tag("tags", ["the food is bad"], top=20)
    for bare, some, token in zip(plain.tokens, two.tokens, every.tokens, strict=True):
        assert {label for label, _ in token.top} == set(TAGS)
        assert sum(p for _, p in token.top) == pytest.approx(1)
        assert [p for _, p in token.top] == sorted((p for _, p in token.top), reverse=True)
        assert some.top == token.top[:2]
        assert token.top[0] == (bare.label, bare.probability) == (token.label, token.probability)


def test_much_text_is_tagged_as_little_is(caller):
    """It is read and written off the event loop."""
    text = "the food was great not bad " * 10
    many = caller.tag("tags", [text] * 100, top=3)
    assert many == caller.tag("tags", [text], top=3) * 100


def test_models_say_what_they_label_with(caller):
    model = caller.get_model("tags")
    assert (model.task, tuple(model.labels), model.streams_tags) == (pb.TASK_TAG, TAGS, False)
    assert not model.HasField("default_sampling")
    assert caller.get_model("tags-online").streams_tags


def test_tokens_are_counted(standing_service, caller):
    def tokens():
        return standing_service.metric("unroll_tokens_total", model="tags", direction="in")

    before = tokens()
    caller.tag("tags", ["the food", ["a b"]])
    assert tokens() == before + 3
    assert standing_service.metric("unroll_batch_rows_count", model="tags", graph="predict")


def item(**fields):
    return pb.TagItem(**fields)


REFUSED = {
    "nothing": ([], {}, "items holds 0 entries"),
    "neither": ([item(text="a"), item()], {}, r"items\[1\] has neither text nor words; send one"),
    "both": ([item(text="a", words=["b"])], {}, r"items\[0\] has both text and words"),
    "no token": ([item(text=" ")], {}, r"items\[0\].text is empty"),
    "an empty word": ([item(words=["a", ""])], {}, r"items\[0\].words\[1\] is empty; leave it out"),
    "too many tokens": (
        [item(text="a " * 65)],
        {},
        r"items\[0\].text has 65 tokens, model 'tags' accepts 64",
    ),
    "too many words": ([item(words=["a"] * 65)], {}, r"items\[0\].words has 65 tokens"),
    "too long a text": ([item(text="a" * 5000)], {}, r"items\[0\].text has 5000 characters"),
    "too much": ([item(words=["a" * 150_000])], {}, "items hold 150000 characters together"),
    "too many labels": ([item(text="a")], {"top_labels": 21}, "top_labels is 21; choose up to 20"),
    "too much to send": (
        [item(text="a " * 64)] * 200,
        {"top_labels": 20},
        "12800 tokens together, with 20 labels each .* at most 131072",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tagged_is_refused_and_says_what_to_do(refusal, case):
    items, others, message = REFUSED[case]
    assert re.search(message, refusal("Tag", pb.TagRequest(model="tags", items=items, **others)))
