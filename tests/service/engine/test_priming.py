import pytest

from service.engine.priming import (
    BURST_EVERY_STEPS,
    BURST_PAUSE_SECONDS,
    LEAST_PAUSE_SECONDS,
    PrimeCost,
    PrimeCredit,
)


def test_cost_is_learned_for_each_size_of_batch():
    cost = PrimeCost()
    cost.observe(1, 10, 10.0)
    cost.observe(16, 10, 40.0)
    assert cost.seconds(1, 5) == pytest.approx(5.0)
    assert cost.seconds(20, 5) == pytest.approx(25.0)


def test_unknown_sizes_are_never_taken_for_cheaper_than_they_can_be():
    """A larger batch costs at most as much as its rows one by one; a smaller one no more."""
    cost = PrimeCost()
    cost.observe(2, 1, 1.0)
    assert cost.seconds(8, 1) == pytest.approx(4.0)
    assert cost.seconds(1, 1) == pytest.approx(1.0)


def test_credit_is_saved_up_to_a_burst():
    credit = PrimeCredit(share=0.5, burst_steps=2.5)
    assert credit.seconds == 0
    for _ in range(20):
        credit.earn(1.0)
    assert credit.seconds == pytest.approx(2.5)


def test_in_the_long_run_no_more_than_the_share_is_spent():
    """Each time there is credit, a piece of three steps' cost is read: half the time, at most."""
    credit, spent = PrimeCredit(share=0.5, burst_steps=2.5), 0.0
    for _ in range(1000):
        credit.earn(1.0)
        if credit.seconds > 0:
            credit.spend(3.0)
            spent += 3.0
    assert 480 <= spent <= 510


def test_a_pause_is_bounded_however_many_wait():
    """In seconds where steps are short, in steps where they are long."""
    credit = PrimeCredit(burst_steps=2.5)
    credit.earn(0.0001)
    assert credit.usual_pause == LEAST_PAUSE_SECONDS
    for _ in range(50):
        credit.earn(1.0)
    assert credit.usual_pause == credit.longest_pause == pytest.approx(2.5)


def test_a_longer_pause_comes_once_in_so_many_steps():
    """Too rarely to be among the slowest hundredth of the gaps between two tokens."""
    credit = PrimeCredit()
    credit.earn(0.001)
    assert credit.longest_pause == BURST_PAUSE_SECONDS
    credit.spend(0.001, pause=0.003)
    assert credit.longest_pause == BURST_PAUSE_SECONDS
    credit.spend(0.001, pause=0.03)
    for _ in range(BURST_EVERY_STEPS):
        assert credit.longest_pause == LEAST_PAUSE_SECONDS
        credit.earn(0.001)
    assert credit.longest_pause == BURST_PAUSE_SECONDS
    assert BURST_EVERY_STEPS > 100
