"""What stands still is found by whoever asks, with a clock of the test."""

from dataclasses import dataclass

import pytest

from service.process.liveness import Liveness


@dataclass
class Worker:
    busy_since: float | None = None
    name: str = "letters"
    purpose: str = "generate"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workers():
    return [Worker(), Worker(name="mood", purpose="predict")]


@pytest.fixture
def liveness(workers, clock):
    return Liveness(30.0, lambda: workers, clock)


def test_nothing_is_said_against_what_goes_on(liveness, clock, workers):
    for _ in range(100):
        clock.now += 9.0
        liveness.beat()
        workers[0].busy_since = clock.now
        clock.now += 1.0
        assert (liveness.why_dead(), liveness.why_not_ready()) == ("", "")


def test_a_loop_that_stands_is_not_ready_first_and_dead_later(liveness, clock):
    clock.now += 11.0
    assert liveness.why_not_ready() == "the event loop has stood still for 11 s"
    assert liveness.why_dead() == ""
    clock.now += 20.0
    assert liveness.why_dead() == "the event loop has stood still for 31 s"


def test_an_engine_within_one_step_is_named(liveness, clock, workers):
    workers[1].busy_since = clock.now
    clock.now += 31.0
    liveness.beat()
    reason = "engine mood-predict has been within one step for 31 s"
    assert liveness.why_dead() == liveness.why_not_ready() == reason


def test_an_engine_that_waits_for_work_may_wait_for_ever(liveness, clock):
    clock.now += 1e6
    liveness.beat()
    assert liveness.why_dead() == ""


def test_a_process_that_was_stopped_is_late_until_its_next_beat(liveness, clock, workers):
    """SIGSTOP for 75 s in the midst of a step, then SIGCONT."""
    workers[0].busy_since = clock.now
    clock.now += 75.0
    assert liveness.why_dead()
    liveness.beat()
    workers[0].busy_since = clock.now
    assert (liveness.why_dead(), liveness.why_not_ready()) == ("", "")
