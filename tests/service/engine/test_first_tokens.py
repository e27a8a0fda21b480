import random

import numpy as np
import pytest

from service.engine.decode import GenerateEngine
from service.engine.errors import NotFinite
from service.engine.first_tokens import FirstTokens
from service.engine.requests import (
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    ResumePolicy,
    TokenMade,
)
from service.engine.slots import Slots
from tests.service.engine.fakes import (
    VOCABULARY,
    Clock,
    FakeRunner,
    Reader,
    Recorder,
    make_engine,
    request,
    run,
    run_alone,
)


class Always(FirstTokens):
    """Worth it however long everybody's step takes."""

    def is_worth(self, streams, step_seconds):
        return streams <= self.slots.capacity


def drawing_first(capacity=8, begin_id=None, end_id=None, rows=4, kind=Always):
    model = make_engine(capacity, begin_id, end_id).model
    first = kind(FakeRunner(), Slots(model.state, rows, model.vocabulary))
    return GenerateEngine(
        model, FakeRunner(), capacity, Clock(), Recorder(), first_tokens=first
    ), first


def started(engine, streams=2, **options):
    """Readers of streams that run."""
    readers = [Reader() for _ in range(streams)]
    for seed, reader in enumerate(readers):
        engine.arrive(engine.open(request(seed=seed, max_tokens=1000, **options), reader))
    while not all(reader.events for reader in readers):
        engine.step()
    engine.step()
    return readers


def test_a_newcomer_has_its_first_token_before_everybodys_step():
    engine, first = drawing_first()
    (running, _) = started(engine)
    made, steps = len(running.tokens), len(engine.runner.step_rows)
    late = Reader()
    engine.arrive(engine.open(request((4, 5), max_tokens=6, seed=7), late))
    sinks = engine.step()
    assert (sinks, len(late.tokens)) == ([late], 1)
    assert len(running.tokens) == made
    assert first._runner.step_rows[-1] == 1
    assert len(engine.runner.step_rows) == steps
    engine.step()
    assert (len(late.tokens), len(running.tokens)) == (2, made + 1)
    assert engine.runner.step_rows[-1] == 3


def test_everybodys_step_comes_between_two_steps_of_newcomers():
    engine, first = drawing_first()
    (running, _) = started(engine)
    made, drawn = len(running.tokens), len(first._runner.step_rows)
    for seed in range(6):  # nothing to read, so no budget holds them up
        engine.arrive(engine.open(request((4,), max_tokens=50, seed=seed), Reader()))
        engine.step()
    assert len(first._runner.step_rows) == drawn + 3
    assert len(running.tokens) == made + 3


@pytest.mark.parametrize("begin_id", [None, 7])
@pytest.mark.parametrize("seed", range(20))
def test_every_stream_makes_what_it_makes_alone(seed, begin_id):
    """Whoever draws first, with whom, and what else they want of it."""
    choose = random.Random(seed)
    engine, first = drawing_first(begin_id=begin_id, end_id=VOCABULARY - 1)
    wanted = [_any_request(choose, number) for number in range(30)]
    readers = []
    for one in wanted:
        for _ in range(choose.randrange(3)):
            engine.step()
        readers.append(Reader())
        engine.arrive(engine.open(one, readers[-1]))
    run(engine)
    assert first._runner.step_rows
    for one, reader in zip(wanted, readers, strict=True):
        alone = run_alone(one, begin_id=begin_id, end_id=VOCABULARY - 1)
        assert _in_order(reader.tokens) == _in_order(alone.tokens)
        assert reader.last.reason == alone.last.reason
        assert _places(reader) == _places(alone)


def _any_request(choose, number):
    others = choose.choice(
        (
            {},
            {},
            {"stop": ("cd",)},
            {"repetition_penalty": 1.5},
            {"top": 2},
            {"samples": 2},
            {"checkpoints": ResumePolicy(every=1)},
            {"checkpoints": ResumePolicy(at_end=True)},
        )
    )
    tokens = [choose.randrange(1, VOCABULARY) for _ in range(choose.randint(1, 9))]
    return request(tokens, max_tokens=choose.randint(1, 8), seed=number, **others)


def _in_order(tokens):
    return sorted(tokens, key=lambda made: (made.sample, made.position))


def _places(reader):
    """Of each checkpoint, what a stream goes on from."""
    snapshots = [event.snapshot for event in reader.of(Checkpoint)]
    return [(s.token, s.made, {n: a.tolist() for n, a in s.state.items()}) for s in snapshots]


def test_a_first_token_that_is_the_last_one_takes_no_row():
    engine, _ = drawing_first()
    started(engine)
    once = Reader()
    engine.arrive(engine.open(request((4, 5), max_tokens=1), once))
    engine.step()
    assert [type(event) for event in once.events][:1] == [TokenMade]
    assert isinstance(once.last, Finished)
    assert once.last.reason is FinishReason.LENGTH
    assert len(engine.scheduler.rows) == 2
    assert engine.scheduler.free_rows == 6


def test_a_reader_that_is_full_after_its_first_token_pauses():
    engine, _ = drawing_first()
    started(engine)
    slow, one = Reader(room=1), request((4, 5), max_tokens=4, seed=3)
    progress = engine.open(one, slow)
    engine.arrive(progress)
    engine.step()
    assert engine.observer.waiting_for_readers == 1
    engine.step()
    assert len(slow.tokens) == 1
    slow.room = 10**9
    engine.resume(progress)
    while progress.running:
        engine.step()
    assert slow.tokens == run_alone(one).tokens


def test_a_newcomer_that_computes_nan_fails_alone():
    engine, first = drawing_first()
    (running, _) = started(engine)
    step = first._runner.step

    def broken(side, rows):
        step(side, rows)
        first.slots.log_probability[0] = np.nan

    first._runner.step = broken
    bad = Reader()
    engine.arrive(engine.open(request((4, 5)), bad))
    engine.step()
    assert isinstance(bad.last, Failed)
    assert isinstance(bad.last.error, NotFinite)
    assert engine.observer.broken == 1
    made = len(running.tokens)
    engine.step()
    assert len(running.tokens) == made + 1


def test_nothing_of_a_stream_is_left_in_the_newcomers_batch():
    engine, first = drawing_first(begin_id=7)
    started(engine)
    engine.arrive(engine.open(request((4, 5)), Reader()))
    engine.step()
    assert first._runner.step_rows
    arrays = [*first.slots.current().values(), *first.slots.controls.values()]
    assert not any(array.any() for array in arrays)


@pytest.mark.parametrize(
    "wants", [{"top": 2}, {"repetition_penalty": 1.5}, {"samples": 5}], ids=str
)
def test_who_wants_more_than_a_token_or_comes_in_a_crowd_joins_everybodys_step(wants):
    engine, first = drawing_first()
    started(engine)
    late = Reader()
    engine.arrive(engine.open(request((4, 5), **wants), late))
    while not late.events:
        engine.step()
    assert first._runner.step_rows == []


def test_a_step_of_newcomers_is_worth_it_beside_a_long_one_only():
    slots = Slots(make_engine().model.state, 4, VOCABULARY)
    first = FirstTokens(FakeRunner(), slots)
    first.warm(Clock())  # a millisecond
    assert first.is_worth(1, 0.0025)
    assert not first.is_worth(1, 0.0015)
    assert first.is_worth(4, 0.0025)
    assert not first.is_worth(5, 0.0025)


def test_one_slow_step_of_newcomers_is_forgotten():
    """The machine was busy with something else just then."""
    first = FirstTokens(FakeRunner(), Slots(make_engine().model.state, 4, VOCABULARY))
    first.warm(iter((0.0, 0.1, 1.0, 1.01, 2.0, 2.1)).__next__)
    assert not first.is_worth(1, 0.015)
    tried = [first.is_worth(1, 0.01) for _ in range(100)]
    assert tried.index(True) > 3
    assert all(tried[tried.index(True) :])
