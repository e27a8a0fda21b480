import random
from dataclasses import replace

import numpy as np
import pytest

from service.engine.errors import EngineFailed
from service.engine.requests import Failed, FinishReason
from tests.service.engine.fakes import (
    collect,
    last_of,
    make_engine,
    request,
    run_alone,
    tokens_of,
)


def test_a_stream_makes_its_tokens_and_ends():
    events = run_alone(request(max_tokens=4))
    assert [token.position for token in tokens_of(events)] == [0, 1, 2, 3]
    finished = last_of(events)
    assert finished.reason is FinishReason.LENGTH
    assert (finished.input_tokens, finished.output_tokens) == (3, 4)
    assert 0 < finished.queue_seconds < finished.first_token_seconds


def test_late_request_joins_running_batch():
    """A request that arrives mid-generation decodes in the next step, and no row changes."""
    engine, events = make_engine(), {}
    engine.arrive(engine.open(request(max_tokens=6, seed=1), "early"))
    for _ in range(2):
        collect(engine.step(), events)
    engine.arrive(engine.open(request((4, 5), max_tokens=6, seed=2), "late"))
    collect(engine.step(), events)
    assert len(tokens_of(events["early"])) == 3
    assert len(tokens_of(events["late"])) == 1
    assert engine.runner.step_rows == [1, 1, 2]
    while not engine.is_idle:
        collect(engine.step(), events)
    alone = run_alone(request((4, 5), max_tokens=6, seed=2))
    assert tokens_of(events["late"]) == tokens_of(alone)


def test_cancel_frees_the_row_at_once():
    """The row is there for the next request before another step runs."""
    engine, events = make_engine(capacity=1), {}
    first = engine.open(request(max_tokens=50), "first")
    engine.arrive(first)
    engine.arrive(engine.open(request(max_tokens=2), "second"))
    collect(engine.step(), events)
    engine.cancel(first)
    assert engine.scheduler.free_rows == 1
    assert not engine.arena.current()["hidden"].any()
    collect(engine.step(), events)
    assert len(tokens_of(events["second"])) == 1
    assert engine.observer.ended == [(FinishReason.CANCELLED, 3, 1)]


def test_a_cancelled_stream_gets_no_further_event():
    engine = make_engine()
    stream = engine.open(request(max_tokens=50), "gone")
    engine.arrive(stream)
    engine.cancel(stream)
    engine.cancel(stream)
    assert engine.is_idle
    assert engine.step() == []


def test_the_end_token_ends_a_stream_and_is_not_delivered():
    alone = tokens_of(run_alone(request(max_tokens=8, temperature=0.0)))
    end = alone[5].token
    first = [token.token for token in alone].index(end)
    events = run_alone(request(max_tokens=8, temperature=0.0), end_id=end)
    assert tokens_of(events) == alone[:first]
    assert last_of(events).reason is FinishReason.END


def test_a_stop_text_ends_a_stream():
    alone = tokens_of(run_alone(request(max_tokens=8)))
    stop = "".join(token.text for token in alone[3:5])
    events = run_alone(request(max_tokens=8, stop=(stop,)))
    assert tokens_of(events) == alone[:3]
    finished = last_of(events)
    assert (finished.reason, finished.output_tokens) == (FinishReason.STOP, 3)


def test_a_source_model_starts_from_its_begin_token():
    engine = make_engine(begin_id=7)
    engine.arrive(engine.open(request((1, 2, 3)), "s"))
    engine.step()
    assert engine.runner.prime_calls == [[3]]


@pytest.mark.parametrize("seed", range(25))
def test_no_request_depends_on_another(seed):
    """Random arrivals, cancels and lengths: every stream gets what it would get alone.

    Rows that are given back hold NaN-free zeros, and all rows come back.
    """
    choose = random.Random(seed)
    engine, events = make_engine(capacity=choose.randint(1, 6), end_id=11), {}
    wanted, open_streams = {}, {}
    for number in range(60):
        for _ in range(choose.randint(0, 2)):
            one = request(
                [choose.randrange(18) for _ in range(choose.randint(1, 600))],
                max_tokens=choose.randint(1, 90),
                seed=choose.randrange(2**64),
                temperature=choose.choice((0.0, 1.0)),
                stop=choose.choice(((), ("ab",), ("c", "dd"))),
            )
            name = f"{number}-{len(wanted)}"
            wanted[name] = one
            open_streams[name] = engine.open(one, name)
            engine.arrive(open_streams[name])
        if open_streams and choose.random() < 0.2:
            name = choose.choice(sorted(open_streams))
            engine.cancel(open_streams.pop(name))
            wanted.pop(name)
        collect(engine.step(), events)
    while not engine.is_idle:
        collect(engine.step(), events)
    assert wanted
    for name, one in wanted.items():
        alone = run_alone(one, end_id=11)
        assert tokens_of(events[name]) == tokens_of(alone)
        timeless = {"queue_seconds": 0.0, "first_token_seconds": 0.0}
        assert replace(last_of(events[name]), **timeless) == replace(last_of(alone), **timeless)
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    for side in engine.arena.sides():
        assert not side.inputs["hidden"].any()


def test_a_failed_step_ends_every_stream_with_a_reason():
    engine = make_engine(capacity=1)
    for name in ("runs", "waits"):
        engine.arrive(engine.open(request(), name))
    engine.step()
    broken = EngineFailed("broken")
    deliveries = engine.fail(broken)
    assert sorted(deliveries, key=lambda d: d[0]) == [
        ("runs", Failed(broken)),
        ("waits", Failed(broken)),
    ]
    assert engine.is_idle


def test_the_observer_hears_one_call_a_step_and_the_end():
    engine = make_engine()
    for number in range(3):
        engine.arrive(engine.open(request(max_tokens=2, seed=number), number))
    while not engine.is_idle:
        engine.step()
    assert engine.observer.rows == [3, 3]
    assert engine.observer.ended == [(FinishReason.LENGTH, 3, 2)] * 3
    assert engine.observer.idles == 1


def test_randomness_goes_on_across_blocks():
    """A stream longer than a block of uniforms draws as many different numbers as tokens."""
    seen = []
    engine = make_engine()
    engine.arrive(engine.open(request(max_tokens=200), "long"))
    while not engine.is_idle:
        engine.step()
        seen.append(float(engine.arena.controls["uniform"][0]))
    assert len(seen) == 200
    assert len(np.unique(seen)) == 200


def test_warming_leaves_no_trace():
    engine = make_engine(capacity=4)
    engine.warm((1, 2, 4, 8))
    assert engine.runner.step_rows == [1, 1, 2, 2, 4, 4]
    for side in engine.arena.sides():
        assert not any(array.any() for array in (*side.inputs.values(), *side.outputs.values()))
