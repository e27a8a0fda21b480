"""The checks themselves: what a model of the service allows, and what it does not."""

import itertools

import pytest

from tests.robustness.checking import Model, not_released, violations
from tests.robustness.history import (
    CLASSIFY,
    GENERATE,
    HANDED_OVER,
    LEFT,
    LOAD,
    OK,
    SEQUENCE,
    UNLOAD,
    Call,
    History,
)

TOKENS = list("abcdef")
MODEL = Model(
    generated={"it": TOKENS},
    tagged={},
    classified={("1", "it"): "one", ("2", "it"): "two"},
    after="".join,
    operated="mood",
    served=frozenset({"1", "2"}),
)


def found(*calls, **options):
    return violations(History(list(calls)), MODEL, **options)


def stream(read, status=OK, finishes=None, start=0, ended=1.0):
    finishes = int(status in (OK, HANDED_OVER)) if finishes is None else finishes
    return Call(GENERATE, "it", 1, start, 0.0, ended, status, "", list(read), finishes)


@pytest.mark.parametrize(
    "call",
    [
        stream("abcdef"),
        stream("abc", LEFT),
        stream("", "INTERNAL"),
        stream("ab", HANDED_OVER),
        stream("cdef", start=2),
    ],
)
def test_a_stream_that_is_as_it_should_be(call):
    assert found(call) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (stream("abcde"), "ended after 5 of 6 tokens"),
        (stream("abdef"), "differs from token 2 on"),
        (stream("abcdefg"), "differs from token 6 on"),
        (stream("acd", LEFT), "differs from token 1 on"),
        (stream("bcdef", start=2), "differs from token 2 on"),
        (stream("abcdef", finishes=0), "was finished 0 times"),
        (stream("abcdef", finishes=2), "was finished 2 times"),
        (stream("ab", "INTERNAL", finishes=1), "was finished 1 times"),
        (stream("ab", "", ended=None), "ended with nothing"),
        (stream("ab", "DEADLINE_EXCEEDED"), "ended with DEADLINE_EXCEEDED"),
        (stream("ab", "CANCELLED"), "ended with CANCELLED"),
    ],
)
def test_a_stream_that_is_not(call, said):
    assert any(said in line for line in found(call)), found(call)


def test_a_service_that_stops_may_cancel():
    assert found(stream("ab", "CANCELLED"), while_stopping=True) == []


def sequence(*parts, together=False):
    """Each part as (text, answer) or (text, None) for one that failed."""
    times = itertools.count()
    calls = []
    for number, (text, answer) in enumerate(parts):
        began = 0.0 if together else float(next(times))
        ended = 9.0 if together else float(next(times))
        status = OK if answer is not None else "INTERNAL"
        calls.append(Call(SEQUENCE, (text, number == 0, False), 1, 0, began, ended, status,
                          answer=answer))  # fmt: skip
    return calls


def test_a_sequence_goes_on_from_what_was_answered():
    assert found(*sequence(("a", "a"), ("b", "ab"), ("c", "abc"))) == []
    assert found(*sequence(("a", "a"), ("b", None), ("c", "ac"))) == []


def test_requests_of_a_sequence_at_the_same_time_may_have_any_order():
    first, *both = sequence(("a", "a"), ("b", "acb"), ("c", "ac"))
    assert found(first, *both) != []
    for call in both:
        call.began, call.ended = 5.0, 6.0
    assert found(first, *both) == []


@pytest.mark.parametrize(
    "parts",
    [
        [("a", "a"), ("b", "b")],  # the state was lost
        [("a", "a"), ("b", None), ("c", "abc")],  # what failed went into it
        [("a", "a"), ("b", "ab"), ("c", "ac")],  # what was answered did not
        [("a", None), ("b", "b")],  # it was never begun
    ],
)
def test_a_sequence_whose_answers_no_order_gives(parts):
    assert any("no order" in line for line in found(*sequence(*parts)))


def test_a_sequence_that_was_ended_takes_no_more():
    first, last, after = sequence(("a", "a"), ("b", "ab"), ("c", "abc"))
    last.about = ("b", False, True)
    assert found(first, last) == []
    assert found(first, last, after) != []


def classify(began, ended, answer="two"):
    status = OK if answer else "NOT_FOUND"
    return Call(CLASSIFY, "it", 0, 0, began, ended, status, answer=answer)


LOADED = Call(LOAD, ("mood", frozenset({"1"})), began=10.0, ended=20.0, status=OK)
REFUSED = Call(LOAD, ("mood", frozenset({"1"})), began=10.0, ended=20.0, status="INTERNAL")
UNLOADED = Call(UNLOAD, ("mood", frozenset()), began=30.0, ended=40.0, status=OK)


@pytest.mark.parametrize(
    "calls",
    [
        [classify(0.0, 1.0)],
        [LOADED, classify(11.0, 12.0, "two"), classify(11.0, 12.0, "one")],
        [LOADED, classify(21.0, 22.0, "one")],
        [REFUSED, classify(21.0, 22.0, "two")],
        [LOADED, UNLOADED, classify(31.0, 32.0, "one"), classify(41.0, 42.0, None)],
    ],
)
def test_an_answer_of_a_version_that_was_served(calls):
    assert found(*calls) == []


@pytest.mark.parametrize(
    "calls",
    [
        [classify(0.0, 1.0, "one")],
        [classify(0.0, 1.0, "neither")],
        [classify(0.0, 1.0, None)],
        [LOADED, classify(8.0, 9.0, "one")],
        [LOADED, classify(21.0, 22.0, "two")],
        [LOADED, classify(11.0, 12.0, None)],
        [REFUSED, classify(11.0, 12.0, "one")],
        [LOADED, UNLOADED, classify(41.0, 42.0, "one")],
    ],
)
def test_an_answer_of_a_version_that_was_not(calls):
    assert len(found(*calls)) == 1


def test_what_is_not_released_is_named():
    rows = dict.fromkeys(
        ("waiting", "paused", "dirty_rows", "canaries_read", "spoilt_rows", "allocated", "freed"), 0
    )
    seen = {
        "calls": 0, "sequences": 0, "open_work": {"letters": 0}, "users": {"letters/1": 0},
        "versions": 1, "served": 1, "models": {"letters": rows | {"capacity": 4, "free": 4}},
    }  # fmt: skip
    assert not_released(seen) == []
    seen["models"]["letters"]["free"] = 3
    seen |= {"users": {"letters/1": 2}, "versions": 2}
    assert not_released(seen) == [
        "users of letters/1: 2", "versions that are not served: 1", "rows of letters: 1",
    ]  # fmt: skip
