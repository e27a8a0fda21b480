"""Bytes are counted by kind and caller, and a greedy caller leaves room for others."""

import pytest

from service.access.memory_budget import ANSWERS, PREFIXES, REQUESTS, WORDS, MemoryBudget
from service.engine.errors import Overloaded
from service.engine.shares import SHARE, Share


@pytest.fixture
def budget():
    return MemoryBudget(1000)


def of(caller):
    SHARE.set(Share(caller))


def take_all(budget, each):
    """Reserve until it is refused; returns how many bytes that were."""
    taken = 0
    try:
        while True:
            budget.reserve(REQUESTS, each)
            taken += each
    except Overloaded:
        return taken


@pytest.fixture(autouse=True)
def _caller():
    before = SHARE.set(Share("ann"))
    yield
    SHARE.reset(before)


def test_what_is_released_is_there_again(budget):
    with budget.reserve(REQUESTS, 600):
        assert (budget.used, budget.used_of(REQUESTS)) == (600, 600)
    assert (budget.used, budget.used_of(REQUESTS)) == (0, 0)


def test_a_block_that_fails_gives_its_bytes_back(budget):
    with pytest.raises(KeyError), budget.reserve(REQUESTS, 600):
        raise KeyError
    assert budget.used == 0


def test_releasing_twice_counts_once(budget):
    held, other = budget.reserve(REQUESTS, 100), budget.reserve(ANSWERS, 50)
    held.release()
    held.release()
    assert (budget.used, other.size) == (50, 50)


def test_one_request_may_take_all_and_no_more(budget):
    with budget.reserve(REQUESTS, 1000):
        pass
    with pytest.raises(Overloaded, match="requests would take 1001 bytes more") as refused:
        budget.reserve(REQUESTS, 1001)
    assert refused.value.retry_after_seconds > 0
    assert budget.used == 0


def test_a_greedy_caller_stops_at_three_quarters_and_another_finds_room(budget):
    taken = take_all(budget, 10)
    assert 700 <= taken <= 750
    of("ben")
    with budget.reserve(REQUESTS, 100):
        assert budget.used == taken + 100


def test_beside_several_greedy_callers_the_next_one_finds_some(budget):
    for name in "abc":
        of(name)
        take_all(budget, 1)
    of("polite")
    assert take_all(budget, 1) >= 10


def test_bytes_are_given_back_to_the_caller_they_were_of(budget):
    held = budget.reserve(WORDS, 0)
    held.change(700)
    of("ben")
    held.release()
    of("ann")
    budget.reserve(REQUESTS, 700).release()


def test_a_caller_that_holds_nothing_is_forgotten(budget):
    for number in range(100):
        of(f"caller {number}")
        budget.reserve(REQUESTS, 10).release()
    assert not budget._used_by_caller


class Cache:
    """Of prefixes."""

    def __init__(self, used):
        self.used = used

    def shrink(self, limit):
        self.used = min(self.used, limit)


def test_prefixes_take_what_is_left_and_give_way():
    cache = Cache(600)
    budget = MemoryBudget(1000, cache)
    with budget.reserve(REQUESTS, 400):
        assert (budget.used_of(PREFIXES), budget.used) == (600, 400)
        with budget.reserve(REQUESTS, 100):
            assert budget.used_of(PREFIXES) == 500
    with budget.reserve(REQUESTS, 1000):
        assert budget.used_of(PREFIXES) == 0


def test_a_request_that_is_refused_costs_no_prefix():
    cache = Cache(600)
    with pytest.raises(Overloaded):
        MemoryBudget(1000, cache).reserve(REQUESTS, 1001)
    assert cache.used == 600
