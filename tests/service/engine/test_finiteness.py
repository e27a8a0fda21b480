"""A model that computes NaN fails the request it does so for, and no other one."""

import math

import numpy as np
import pytest

from service.engine.dynamic_batcher import BatchDone, BatchEngine, BatchFailed
from service.engine.errors import NotFinite
from service.engine.finiteness import broken_rows
from service.engine.requests import Beam, Failed, Finished, NextTokenRequest
from tests.service.engine import test_dynamic_batcher, test_online_tagging
from tests.service.engine.fakes import Reader, make_engine, request, run, run_alone

NAN, INF = math.nan, math.inf
# Requests of this temperature are the ones that the model computes NaN for.
POISON = 0.125


def poison(engine, from_token=0, temperature=POISON):
    """The engine's runner gives NaN, and a token that is none, for rows of that temperature."""
    runner, made = engine.runner, {}
    real = runner.step

    def step(side, rows):
        real(side, rows)
        inputs, outputs = runner.sides[side].inputs, runner.sides[side].outputs
        known = runner.sides[side].reports["log_probabilities"]
        for row in np.flatnonzero(inputs["temperature"][:rows] == temperature):
            made[row] = made.get(row, -1) + 1
            if made[row] >= from_token:
                outputs["next_token"][row] = 10**6
                outputs["log_probability"][row] = NAN
                known[row] = NAN

    runner.step = step
    return engine


def submit(engine, generation):
    reader = Reader()
    engine.arrive(engine.open(generation, reader))
    return reader


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([], []),
        ([-1.0, -2.0], []),
        ([-1.0, NAN, -2.0], [1]),
        ([INF, -1.0, NAN], [0, 2]),
        ([-INF, -1.0], []),  # what has no probability
        ([-INF, INF, NAN], [1, 2]),
    ],
)
def test_rows_without_a_log_probability_are_found(values, rows):
    assert list(broken_rows(values)) == rows


@pytest.mark.parametrize("from_token", [0, 1, 3])
def test_the_request_fails_and_its_neighbours_go_on_bit_for_bit(from_token):
    engine = poison(make_engine(), from_token)
    before = submit(engine, request(max_tokens=9, seed=1))
    broken = submit(engine, request(max_tokens=9, temperature=POISON))
    after = submit(engine, request((4, 5), max_tokens=9, seed=2))
    run(engine)
    assert isinstance(broken.last.error, NotFinite)
    assert len(broken.tokens) == from_token, "what was good has gone out"
    assert before.tokens == run_alone(request(max_tokens=9, seed=1)).tokens
    assert after.tokens == run_alone(request((4, 5), max_tokens=9, seed=2)).tokens
    assert engine.observer.broken == 1
    assert engine.scheduler.free_rows == 8
    assert not engine.slots.current()["hidden"].any()


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 3},
        {"beam": Beam(3, 2)},
        {"top": 3},
        {"stop": ("abc",)},
        {"repetition_penalty": 1.5},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_kind_of_generation_fails_whole(settings):
    """A sample or a row of a beam that is NaN leaves no half answer."""
    engine = poison(make_engine())
    broken = submit(engine, request(max_tokens=4, temperature=POISON, **settings))
    good = submit(engine, request(max_tokens=4, seed=3))
    run(engine)
    assert [type(event) for event in broken.events] == [Failed]
    assert isinstance(broken.last.error, NotFinite)
    assert good.tokens == run_alone(request(max_tokens=4, seed=3)).tokens
    assert (engine.observer.broken, engine.scheduler.free_rows) == (1, 8)


def test_a_look_ahead_fails_whole():
    engine = poison(make_engine(), temperature=0)  # it takes the likeliest
    broken = submit(engine, NextTokenRequest((1, 2, 3), 100.0))
    good = submit(engine, request(max_tokens=4, seed=3))
    run(engine)
    assert [type(event) for event in broken.events] == [Failed]
    assert isinstance(broken.last.error, NotFinite)
    assert good.tokens == run_alone(request(max_tokens=4, seed=3)).tokens
    assert (engine.observer.broken, engine.scheduler.free_rows) == (1, 8)


def test_who_waits_is_reported_in_the_step_that_broke():
    engine = poison(make_engine())
    broken = submit(engine, request(temperature=POISON))
    assert engine.step() == [broken]
    assert engine.is_idle


def test_a_stream_of_pushed_tokens_fails_alone():
    engine = test_online_tagging.make_engine()
    real = engine.runner.step

    def step(side, rows):
        real(side, rows)
        inputs, outputs = engine.runner.sides[side].inputs, engine.runner.sides[side].outputs
        outputs["log_probability"][:rows][inputs["token"][:rows] == 7] = NAN

    engine.runner.step = step
    good, bad = test_online_tagging.Caller(engine), test_online_tagging.Caller(engine)
    good.push(1, 2, 3)
    bad.push(1, 7, 3)
    run(engine)
    good.close()
    run(engine)
    assert good.reported == test_online_tagging.labelled([1, 2, 3]).reported
    assert isinstance(good.reader.last, Finished)
    assert bad.reported == test_online_tagging.labelled([1]).reported
    assert isinstance(bad.reader.last.error, NotFinite)
    bad.push(4)
    bad.close()
    bad.cancel()
    run(engine)
    assert isinstance(bad.reader.last, Failed), "nothing comes after it"
    assert (engine.observer.broken, engine.scheduler.free_rows) == (1, 8)


class BreaksOn(test_dynamic_batcher.Doubler):
    """No numbers for texts that hold an x."""

    def run(self, items):
        for results in super().run(items):
            yield [None if "x" in text else text for text in results]


def test_of_a_batch_the_request_with_an_item_that_is_nan_fails_alone():
    observer = test_dynamic_batcher.Recorder()
    observer.broken = 0
    observer.not_finite = lambda: setattr(observer, "broken", observer.broken + 1)
    engine = BatchEngine(BreaksOn(), 4, lambda: 0.0, observer)
    test_dynamic_batcher.submit(engine, "first", "aa", "bb")
    broken = test_dynamic_batcher.submit(engine, "broken", "cc", "xx", "xy", "dd", "eeeeeeee")
    test_dynamic_batcher.submit(engine, "last", "ff")
    answers = test_dynamic_batcher.drain(engine)
    assert answers["first"] == BatchDone(["aaaa", "bbbb"])
    assert answers["last"] == BatchDone(["ffff"])
    assert isinstance(answers["broken"], BatchFailed)
    assert isinstance(answers["broken"].error, NotFinite)
    assert observer.broken == 1, "two of its items broke, and it is one request"
    engine.cancel(broken)
    assert ["eeeeeeee"] not in engine.runner.batches, "what is left of it does not run"
