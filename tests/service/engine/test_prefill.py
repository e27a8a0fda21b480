import pytest

from service.engine.prefill import (
    LEAST_PAUSE_SECONDS,
    LONG_PAUSE_EVERY_STEPS,
    LONG_PAUSE_SECONDS,
    PrefillBudget,
    PrefillCost,
)


def test_cost_is_learned_for_each_size_of_batch():
    cost = PrefillCost()
    cost.observe(1, 10, 10.0)
    cost.observe(16, 10, 40.0)
    assert cost.seconds(1, 5) == pytest.approx(5.0)
    assert cost.seconds(20, 5) == pytest.approx(25.0)


def test_unknown_sizes_are_never_taken_for_cheaper_than_they_can_be():
    """A larger batch costs at most as much as its rows one by one; a smaller one no more."""
    cost = PrefillCost()
    cost.observe(2, 1, 1.0)
    assert cost.seconds(8, 1) == pytest.approx(4.0)
    assert cost.seconds(1, 1) == pytest.approx(1.0)


def test_no_slow_moment_keeps_a_size_of_batch_from_being_read_again():
    """Who is read in smaller batches since shows that larger ones cost no more a row."""
    cost = PrefillCost()
    cost.observe(32, 1, 32.0)
    cost.observe(2, 1, 4.0)
    cost.observe(32, 1, 3200.0)
    assert cost.seconds(32, 1) > cost.seconds(2, 1) * 16 - 1e-6
    for _ in range(20):
        cost.observe(2, 1, 4.0)
    assert cost.seconds(32, 1) == pytest.approx(2.0 * 32, rel=0.02)


def test_what_a_large_batch_took_a_smaller_one_takes_for_each_row_too():
    cost = PrefillCost()
    cost.observe(2, 1, 4.0)
    for _ in range(30):
        cost.observe(32, 1, 320.0)
    assert cost.seconds(2, 1) == pytest.approx(20.0, rel=0.01)


def test_credit_is_saved_up_to_a_burst():
    prefill_budget = PrefillBudget(share=0.5, burst_steps=2.5)
    assert prefill_budget.seconds == 0
    for _ in range(20):
        prefill_budget.earn(1.0)
    assert prefill_budget.seconds == pytest.approx(2.5)


def test_in_the_long_run_no_more_than_the_share_is_spent():
    """Each time there is budget, a piece of three steps' cost is read: half the time, at most."""
    prefill_budget, spent = PrefillBudget(share=0.5, burst_steps=2.5), 0.0
    for _ in range(1000):
        prefill_budget.earn(1.0)
        if prefill_budget.seconds > 0:
            prefill_budget.spend(3.0)
            spent += 3.0
    assert 480 <= spent <= 510


@pytest.mark.parametrize(
    ("step", "earned"), [(0.001, 0.0016), (0.0015, 0.0024), (0.003, 0.0032), (0.02, 0.02)]
)
def test_a_short_step_earns_more_than_its_share(step, earned):
    """Never so much more that a longer step would have earned less."""
    for share in (0.5, 1.0, 2.0):
        prefill_budget = PrefillBudget(share=share)
        prefill_budget.earn(step)
        prefill_budget.spend(10 * step)
        before = prefill_budget.seconds
        prefill_budget.earn(step)
        assert prefill_budget.seconds - before == pytest.approx(share * earned)


def test_a_pause_is_bounded_however_many_wait():
    """In seconds where steps are short, in steps where they are long."""
    prefill_budget = PrefillBudget(burst_steps=2.5)
    prefill_budget.earn(0.0001)
    assert prefill_budget.usual_pause == LEAST_PAUSE_SECONDS
    for _ in range(50):
        prefill_budget.earn(1.0)
    assert prefill_budget.usual_pause == pytest.approx(2.5)
    assert prefill_budget.allowance(queue_pressure=1000, newcomers=100) == pytest.approx(2.5)


def earning(prefill_budget, steps, seconds=0.001):
    for _ in range(steps):
        prefill_budget.earn(seconds)


def test_a_longer_pause_comes_once_in_so_many_steps():
    """Too rarely to be among the slowest hundredth of the gaps between two tokens."""
    prefill_budget, many = PrefillBudget(), {"queue_pressure": 1000, "newcomers": 60}
    earning(prefill_budget, 3)
    assert prefill_budget.allowance(**many) == LONG_PAUSE_SECONDS
    prefill_budget.spend(0.0001, pause=0.003)  # it was not used
    assert prefill_budget.allowance(**many) == LONG_PAUSE_SECONDS
    prefill_budget.spend(0.0001, pause=0.03)
    for _ in range(LONG_PAUSE_EVERY_STEPS):
        assert prefill_budget.allowance(**many) == LEAST_PAUSE_SECONDS
        prefill_budget.spend(0.0001, pause=0.006)  # longer than it was to be, and no burst
        prefill_budget.earn(0.001)
    assert prefill_budget.allowance(**many) == LONG_PAUSE_SECONDS
    assert LONG_PAUSE_EVERY_STEPS > 100


def test_whoever_comes_after_everybody_left_has_a_longer_pause_at_once():
    prefill_budget, many = PrefillBudget(), {"queue_pressure": 1000, "newcomers": 60}
    earning(prefill_budget, 3)
    assert prefill_budget.allowance(**many) == LONG_PAUSE_SECONDS
    prefill_budget.spend(0.0001, pause=0.1)
    earning(prefill_budget, 3)
    assert prefill_budget.allowance(**many) == LEAST_PAUSE_SECONDS
    prefill_budget.rest()
    assert prefill_budget.allowance(**many) == LONG_PAUSE_SECONDS


def test_a_pause_is_lent_only_to_what_owes_nothing():
    prefill_budget = PrefillBudget(share=0.5, burst_steps=2.0)
    assert prefill_budget.loan == 0
    earning(prefill_budget, 10, seconds=0.01)
    assert prefill_budget.loan == pytest.approx(0.02)
    prefill_budget.spend(0.05)
    assert prefill_budget.loan == 0
    earning(prefill_budget, 7, seconds=0.01)
    assert prefill_budget.loan == pytest.approx(0.02)


def test_few_newcomers_are_read_at_once_and_have_no_longer_pause():
    prefill_budget = PrefillBudget()
    earning(prefill_budget, 3)
    prefill_budget.newcomer()
    assert prefill_budget.allowance(queue_pressure=1000, newcomers=3) == LEAST_PAUSE_SECONDS


def test_a_longer_pause_waits_for_those_who_come_together_but_not_for_ever():
    prefill_budget, many = PrefillBudget(), {"queue_pressure": 1000, "newcomers": 60}
    earning(prefill_budget, 3)
    prefill_budget.newcomer()
    assert prefill_budget.allowance(**many) == 0
    earning(prefill_budget, 2)
    assert prefill_budget.allowance(**many) == LONG_PAUSE_SECONDS
    prefill_budget.spend(0.0001, pause=0.1)
    earning(prefill_budget, LONG_PAUSE_EVERY_STEPS)
    allowed = []
    for _ in range(8):  # one comes before every step
        prefill_budget.newcomer()
        allowed.append(prefill_budget.allowance(**many))
        earning(prefill_budget, 1)
    assert allowed == [0] * 6 + [LONG_PAUSE_SECONDS] * 2
