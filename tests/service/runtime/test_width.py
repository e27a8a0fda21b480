import pytest

from service.runtime.width import Width


def run(width, runs, narrow, wide):
    """Which of so many runs were on several threads, where each takes so many seconds."""
    chosen = []
    for _ in range(runs):
        is_wide = width.is_wide()
        width.ran(is_wide, wide if is_wide else narrow)
        chosen.append(is_wide)
    return chosen


@pytest.mark.parametrize(("narrow", "wide", "best"), [(1.0, 0.6, True), (1.0, 1.1, False)])
def test_what_is_faster_is_used_but_for_looks_at_the_other(narrow, wide, best):
    width = Width(look_every=10)
    run(width, 10, narrow, wide)
    chosen = run(width, 100, narrow, wide)
    assert chosen.count(not best) == 10


def test_a_second_thread_that_gains_little_is_left_to_others():
    width = Width(look_every=10)
    run(width, 10, 1.0, 0.95)
    assert run(width, 100, 1.0, 0.95).count(True) == 10


def test_what_is_faster_changes_with_what_else_runs():
    width = Width(look_every=10)
    run(width, 20, 1.0, 0.6)
    run(width, 100, 1.0, 1.4)
    assert run(width, 100, 1.0, 1.4).count(True) == 10
    run(width, 100, 1.0, 0.6)
    assert run(width, 100, 1.0, 0.6).count(True) == 90


def test_one_slow_run_changes_nothing():
    width = Width(look_every=1000)
    run(width, 20, 1.0, 0.6)
    assert width.is_wide()
    width.ran(True, 50.0)
    assert all(run(width, 20, 1.0, 0.6))


def test_a_slow_first_run_counts_for_nothing():
    """It allocates."""
    width = Width(look_every=1000)
    for seconds in (9.0, 1.0, 9.0, 0.6, 1.0, 0.6):
        width.ran(width.is_wide(), seconds)
    assert width.is_wide()
