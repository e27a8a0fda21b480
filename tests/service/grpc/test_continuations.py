"""Score of what follows a text, over real channels: choices, and the likeliest next tokens."""

import math
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.tiny import NUTRIENTS
from unroll.v1 import unroll_pb2 as pb

TEXT, CHOICES = "fed a", ["b", "cab l", "ij", " mn mn mn mn"]
VECTOR = [50.0, 120.5, 3.0]


def known(tokens):
    return [(token.id, token.log_probability) for token in tokens]


def test_a_choice_has_the_bits_that_it_has_within_the_whole_text(caller):
    """The text is read once, by the graph that scores whole texts."""
    (scored,) = caller.score("letters", [TEXT], choices=CHOICES)
    whole = caller.score("letters", [TEXT + choice for choice in CHOICES])
    assert scored.tokens == []
    for choice, text, whole_text in zip(scored.choices, CHOICES, whole, strict=True):
        assert choice.text == text
        assert known(choice.tokens) == known(whole_text.tokens[len(TEXT) :])
        assert choice.log_probability == pytest.approx(sum(p for _, p in known(choice.tokens)))
        mean = choice.log_probability / len(text)
        assert choice.log_probability_per_token == pytest.approx(mean)


def test_probabilities_are_shares_of_what_the_choices_have_together(caller):
    (scored,) = caller.score("letters", [TEXT], choices=CHOICES)
    weights = [math.exp(choice.log_probability) for choice in scored.choices]
    shares = [choice.probability for choice in scored.choices]
    assert shares == pytest.approx([weight / sum(weights) for weight in weights])
    assert sum(shares) == pytest.approx(1)
    assert shares[scored.best] == max(shares)


@pytest.mark.parametrize(
    ("model", "texts", "given"),
    [
        ("letters", ["a", "fed a", "mn mn mn mn mn", "k"], {}),
        ("bigrams", ["a", "fed a"], {}),
        ("speller", ["", "P", "S T U"], {"sources": ["abc", "k", "mn mn mn"]}),
        ("foods", ["", "P Q"], {"vectors": [VECTOR, VECTOR[::-1]]}),
    ],
)
def test_an_item_gets_the_same_bits_alone_and_among_others(caller, model, texts, given):
    choices = ["a", "bc", "dcb a"] if model in ("letters", "bigrams") else ["Q", "R S", "P P P"]
    together = caller.score(model, texts, choices=choices, **given)
    for number, text in enumerate(texts):
        own = {name: [some[number]] for name, some in given.items()}
        assert caller.score(model, [text], choices=choices, **own) == [together[number]]
        for place, choice in enumerate(choices):
            (alone,) = caller.score(model, [text], choices=[choice], **own)
            assert alone.choices[0].tokens == together[number].choices[place].tokens
            assert alone.choices[0].probability == 1


def test_answers_are_the_same_whoever_else_calls(caller):
    """Choices, whole texts, next tokens and embeddings share engines with one another."""
    texts = ["a", "fed a", "mn mn mn mn mn", "k", "abcdefghij" * 6]
    calls = [
        call
        for text in texts
        for call in (
            lambda t=text: caller.score("letters", [t], choices=["a", "bc", "dcb a"]),
            lambda t=text: caller.score("letters", [t + "a"]),
            lambda t=text: caller.next_tokens("letters", [t]),
            lambda t=text: caller.embed("letters", [t]),
            lambda t=text: caller.score("speller", [""], [t[:10]], choices=["P", "Q R"]),
        )
    ]
    alone = [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        for _ in range(3):
            assert list(pool.map(lambda call: call(), calls)) == alone


def test_texts_may_have_choices_of_their_own(caller):
    two = caller.score("letters", ["ab", "cd"], choices=[["e"], ["f", "gh"]])
    assert [[choice.text for choice in scored.choices] for scored in two] == [["e"], ["f", "gh"]]


def test_a_choice_after_a_source_ends_the_answer(caller):
    (scored,) = caller.score("speller", [""], ["abc"], choices=["P Q R", "S"])
    whole = caller.score("speller", ["P Q R", "S"], ["abc", "abc"])
    assert [choice.tokens for choice in scored.choices] == [text.tokens for text in whole]
    (begun,) = caller.score("speller", ["P Q"], ["abc"], choices=["R"])
    assert known(begun.choices[0].tokens) == known(whole[0].tokens[2:])


def test_a_choice_after_a_vector_ends_the_answer(caller):
    (scored,) = caller.score("foods", [""], vectors=[VECTOR], choices=["P", "Q R"])
    whole = caller.score("foods", ["P", "Q R"], vectors=[VECTOR, VECTOR])
    assert len(VECTOR) == len(NUTRIENTS)
    assert [choice.tokens for choice in scored.choices] == [text.tokens for text in whole]


def first_token(caller, model, **given):
    options = {"max_tokens": 1, "temperature": 0, "top_log_probabilities": 4, "min_tokens": 1}
    (token,) = [t for chunk in caller.generate(model, **options, **given) for t in chunk.tokens]
    return list(token.top)


@pytest.mark.parametrize(
    ("model", "text", "given"),
    [
        ("letters", "fed a", {"prompt": "fed a"}),
        ("letters", "k", {"prompt": "k"}),
        ("bigrams", "fed a", {"prompt": "fed a"}),
        ("speller", "", {"source": "abc"}),
        ("foods", "", {"vector": VECTOR}),
    ],
)
def test_next_tokens_are_those_of_the_first_token_that_is_generated(caller, model, text, given):
    also = {f"{name}s": [value] for name, value in given.items() if name != "prompt"}
    (tokens,) = caller.next_tokens(model, [text], **also, top=4)
    expected = first_token(caller, model, **given)
    assert [(token.id, token.text, token.log_probability) for token in tokens] == expected


def test_next_tokens_after_an_answer_that_has_begun(caller):
    """And they are the same, whether choices read the text, too."""
    options = {"max_tokens": 2, "temperature": 0, "top_log_probabilities": 3, "min_tokens": 2}
    chunks = caller.generate("speller", source="abc", **options)
    first, second = [token for chunk in chunks for token in chunk.tokens]
    (tokens,) = caller.next_tokens("speller", [first.text], ["abc"], top=3)
    assert [token.id for token in tokens] == [number for number, _, _ in second.top]
    assert [token.log_probability for token in tokens] == pytest.approx(
        [value for _, _, value in second.top], abs=1e-5
    )


def test_choices_and_next_tokens_come_together(standing_service, caller):
    items = [
        pb.ScoreItem(text="fed a", choices=["b", "c"], top_next_tokens=3),
        pb.ScoreItem(text="ab"),
        pb.ScoreItem(text="k", top_next_tokens=20),
    ]
    request = pb.ScoreRequest(model="letters", items=items)
    first, plain, last = caller._stubs.unroll.Score(request).scores
    (choices,) = caller.score("letters", ["fed a"], choices=["b", "c"])
    assert [c.probability for c in first.choices] == [c.probability for c in choices.choices]
    (three,) = caller.next_tokens("letters", ["fed a"], top=3)
    assert [token.id for token in first.next_tokens] == [token.id for token in three]
    assert (len(plain.tokens), len(plain.choices), len(plain.next_tokens)) == (2, 0, 0)
    assert len(last.next_tokens) == 17, "as many as the vocabulary has"
    assert (first.tokens, last.tokens) == ([], [])


def test_unknown_symbols_of_text_source_and_choices_are_counted(caller):
    (scored,) = caller.score("letters", ["aX"], choices=["bÄ", "?"])
    assert scored.unknown_symbols == 3
    (scored,) = caller.score("speller", ["?"], ["a!"], choices=["P ?"])
    assert scored.unknown_symbols == 3


def item(text="abc", **fields):
    return pb.ScoreItem(text=text, **fields)


REFUSED = {
    "too many choices": ([item(choices=["a"] * 129)], r"items\[0\].choices holds 129 texts; send"),
    "too many together": (
        [item(choices=["a"] * 100)] * 11,
        "items have 1100 choices together; send at most 1024 a request",
    ),
    "an empty choice": ([item(choices=["a", ""])], r"items\[0\].choices\[1\] is empty"),
    "a long choice": ([item(choices=["a" * 401])], r"items\[0\].choices\[0\] has 401 "),
    "a long text": ([item("a" * 65, choices=["a"])], r"items\[0\].text has 65 "),
    "no text": ([item(), item("", choices=["a"])], r"items\[1\].text is empty"),
    "no text before a token": ([item("", top_next_tokens=1)], r"items\[0\].text is empty"),
    "too many next tokens": ([item(top_next_tokens=21)], r"items\[0\].top_next_tokens is 21; cho"),
    "a source": ([item(source="a", choices=["a"])], r"items\[0\].source is set"),
    "too much text": (
        [item(choices=["a" * 400] * 100)] * 4,
        "items hold 160012 characters together; send at most 131072",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_follow_is_refused_and_says_what_to_do(refusal, case):
    items, message = REFUSED[case]
    assert re.search(message, refusal("Score", pb.ScoreRequest(model="letters", items=items)))


def test_text_and_choice_share_the_length_of_an_answer(refusal, caller):
    begun = "P " * 40
    source = {"source": "abc", "choices": ["Q " * 21]}
    request = pb.ScoreRequest(model="speller", items=[item(begun, **source)])
    assert "has 21 tokens, model 'speller' accepts 20" in refusal("Score", request)
    (scored,) = caller.score("speller", [begun], ["abc"], choices=["Q " * 20])
    assert len(scored.choices[0].tokens) == 21


def test_more_texts_than_may_be_stepped_are_refused(refusal, standing_service, monkeypatch):
    monkeypatch.setattr(standing_service.app.registry.get("letters").thread, "limit", 2)
    items = [item("a", top_next_tokens=1)] * 3
    message = refusal("Score", pb.ScoreRequest(model="letters", items=items))
    assert "3 items have top_next_tokens, and this server steps at most 2 texts at" in message
