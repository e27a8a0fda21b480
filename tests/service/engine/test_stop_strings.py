import random

import pytest

from service.engine.requests import TokenMade
from service.engine.stop_strings import StopMatcher


def feed(stops, texts):
    """(text delivered, whether it stopped, texts delivered after each token)"""
    matcher, delivered, moments = StopMatcher(stops), "", []
    for position, text in enumerate(texts):
        released, stopped = matcher.feed(TokenMade(0, text, position, 0.0))
        delivered += "".join(token.text for token in released)
        moments.append(delivered)
        if stopped:
            return delivered, True, moments
    return delivered + "".join(token.text for token in matcher.flush()), False, moments


def test_without_stops_everything_passes_at_once():
    assert feed((), ["a", "b"]) == ("ab", False, ["a", "ab"])


def test_what_could_become_a_stop_text_is_held_back():
    """ "E" could begin "END"; it is delivered once "EX" shows that it did not."""
    text, stopped, moments = feed(["END"], list("aEXb"))
    assert (text, stopped) == ("aEXb", False)
    assert moments == ["a", "a", "aEX", "aEXb"]


def test_nothing_of_the_stop_text_is_delivered():
    assert feed(["END"], list("okEND!"))[:2] == ("ok", True)
    assert feed(["\n\n"], list("a\nb\n\nc"))[:2] == ("a\nb", True)


def test_a_token_that_only_ends_in_a_stop_text_is_cut():
    text, stopped, _ = feed([" the"], ["all", " of the", " rest"])
    assert (text, stopped) == ("all of", True)


def test_the_earliest_stop_text_counts():
    assert feed(["cd", "b"], ["abcd"])[:2] == ("a", True)


def test_an_unfinished_stop_text_is_delivered_at_the_end():
    assert feed(["END"], list("aEN"))[:2] == ("aEN", False)


@pytest.mark.parametrize("seed", range(30))
def test_random_texts_stop_where_a_search_of_the_whole_text_says(seed):
    """Token by token gives the text before the first stop that a whole search finds."""
    choose = random.Random(seed)
    stops = ["".join(choose.choices("ab", k=choose.randint(1, 4))) for _ in range(2)]
    texts = ["".join(choose.choices("abc", k=choose.randint(1, 3))) for _ in range(30)]
    text, stopped, moments = feed(stops, texts)
    whole, expected = "", None
    for part in texts:
        whole += part
        found = [whole.find(stop) for stop in stops if stop in whole]
        if found:
            expected = whole[: min(found)]
            break
    assert stopped == (expected is not None)
    assert text == (whole if expected is None else expected)
    assert all(text.startswith(moment) for moment in moments)
