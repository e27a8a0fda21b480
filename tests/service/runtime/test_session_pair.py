"""A graph on one thread and, once that may pay, on several."""

import threading

import numpy as np
import pytest

from service.runtime.session_pair import RUNS_BEFORE, OnDemand, SessionPair, TimedPair


class Session:
    def __init__(self):
        self.runs = 0

    def run(self, outputs, feed):
        self.runs += 1
        return [feed["x"] + 1]


class Opener:
    """Gives a session, or fails; ``ended`` once it did."""

    def __init__(self, found=None, error=None):
        self.found, self.error = found, error
        self.calls, self.ended = 0, threading.Event()
        self.thread = None

    def __call__(self):
        self.calls, self.thread = self.calls + 1, threading.current_thread()
        self.ended.set()
        if self.error:
            raise self.error
        return self.found


def wanted(on_demand, opener):
    """As often as it takes until it is opened, and until that thread is done."""
    found = [on_demand.find() for _ in range(RUNS_BEFORE + 1)]
    assert opener.ended.wait(10)
    opener.thread.join(10)
    return found


def test_a_session_is_opened_once_it_was_wanted_often_enough():
    opener = Opener(Session())
    on_demand = OnDemand("model m", opener)
    for _ in range(RUNS_BEFORE):
        assert on_demand.find() is None
    assert opener.calls == 0
    on_demand.find()
    assert opener.ended.wait(10)
    opener.thread.join(10)
    assert opener.thread is not threading.current_thread()
    for _ in range(2 * RUNS_BEFORE):
        assert on_demand.find() is opener.found
    assert opener.calls == 1


@pytest.mark.parametrize("opener", [Opener(None), Opener(error=OSError("it is gone"))])
def test_what_cannot_be_opened_is_done_without_and_not_tried_again(opener, caplog):
    on_demand = OnDemand("model m: 'step'", opener)
    pair = SessionPair(Session(), on_demand.find)
    wanted(on_demand, opener)
    for _ in range(2 * RUNS_BEFORE):
        assert pair.of_width(True) is pair.narrow
    assert opener.calls == 1
    said = [record.getMessage() for record in caplog.records]
    assert said == (["model m: 'step' stays on one thread: it is gone"] if opener.error else [])


def test_each_size_of_a_pair_is_found_out_by_itself():
    wide = Session()
    pair = SessionPair(Session(), lambda: wide)
    timed = TimedPair(pair, look_every=1000)
    for rows in (1, 2, 3, 16, 17):
        for _ in range(6):
            (found,) = timed.run(rows, 4, ["y"], {"x": np.arange(rows)})
            assert found.tolist() == list(range(1, rows + 1))
    # 2 and 3 are of one size, and so are 16 and 17: three runs of each width are the first ones.
    assert min(pair.narrow.runs, wide.runs) >= 3 * 3
    assert pair.narrow.runs + wide.runs == 30


def test_a_pair_of_one_runs_that():
    narrow = Session()
    timed = TimedPair(SessionPair(narrow), look_every=2)
    for _ in range(5):
        timed.run(1, 1, ["y"], {"x": np.arange(1)})
    assert narrow.runs == 5


def test_a_pair_goes_on_alone_until_the_other_one_is_open():
    opener = Opener(Session())
    on_demand = OnDemand("model m", opener)
    pair = SessionPair(Session(), on_demand.find)
    timed = TimedPair(pair, look_every=1000)
    for _ in range(RUNS_BEFORE + 1):
        timed.run(64, 1, ["y"], {"x": np.arange(64)})
    assert opener.ended.wait(10)
    opener.thread.join(10)
    alone = pair.narrow.runs
    for _ in range(6):
        timed.run(64, 1, ["y"], {"x": np.arange(64)})
    assert opener.found.runs == 3
    assert pair.narrow.runs == alone + 3
