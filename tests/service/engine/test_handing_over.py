"""An engine that is about to stop: what each request gets, and that it goes on elsewhere."""

import random
from dataclasses import replace

import pytest

from service.engine.errors import ServiceStopping
from service.engine.requests import (
    Beam,
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    NextTokenRequest,
    ResumePolicy,
    SampleFinished,
)
from tests.service.engine.fakes import Reader, make_engine, request, run, run_alone
from tests.service.engine.test_decode import random_request
from tests.service.engine.test_online_tagging import TOKENS, Caller, labelled
from tests.service.engine.test_online_tagging import make_engine as make_push_engine

STOPPING = ServiceStopping("the server is stopping")
MOVES = ResumePolicy(on_stop=True)


def begin(engine, wanted, room=10**9):
    reader = Reader(room)
    progress = engine.open(wanted, reader)
    engine.arrive(progress)
    return progress, reader


def moved(reader, wanted, **options):
    """The tokens of the rest, from each checkpoint in an engine of its own."""
    rest = []
    for checkpoint in reader.of(Checkpoint):
        snapshot = checkpoint.snapshot
        resumed = replace(
            wanted,
            tokens=snapshot.tokens,
            resumed=snapshot,
            samples=1,
            first_sample=snapshot.sample,
        )
        rest += run_alone(resumed, **options).tokens
    return rest


def by_place(tokens):
    return sorted(tokens, key=lambda made: (made.sample, made.position))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("begin_id", [None, 7])
def test_every_request_goes_on_elsewhere_or_is_sent_back_for_later(seed, begin_id):
    """At any moment of any mix: what was sent and what follows are what it gets undisturbed."""
    choose = random.Random(seed)
    engine = make_engine(capacity=choose.randint(2, 6), end_id=11, begin_id=begin_id)
    wanted = {}
    for _ in range(choose.randint(5, 60)):
        if choose.random() < 0.5:
            one = replace(random_request(choose), checkpoints=MOVES)
            progress, reader = begin(engine, one, choose.choice((4, 10**9)))
            wanted[progress] = one, reader
        for progress, (_, reader) in wanted.items():
            if reader.mark_if_full() and choose.random() < 0.3:
                reader.room += choose.randint(1, 20)
                engine.resume(progress)
        engine.step()
    before = [reader for _, reader in wanted.values() if reader.of(Finished)]
    sinks = engine.hand_over(STOPPING)
    assert engine.is_idle
    assert not engine.scheduler.everyone()
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    for side in engine.slots.sides():
        assert not side.inputs["hidden"].any()
    assert len(set(map(id, sinks))) == len(sinks) == len(wanted) - len(before)
    for one, reader in wanted.values():
        last = reader.last
        if isinstance(last, Failed):
            assert last.error is STOPPING
            assert not reader.tokens
        elif last.reason is FinishReason.HANDED_OVER:
            alone = run_alone(one, end_id=11, begin_id=begin_id)
            reported = reader.tokens + moved(reader, one, end_id=11, begin_id=begin_id)
            assert by_place(reported) == by_place(alone.tokens), one
            ended = {event.sample for event in reader.of(SampleFinished)}
            open_ones = {checkpoint.sample for checkpoint in reader.of(Checkpoint)}
            assert not ended & open_ones
            assert ended | open_ones == set(range(one.samples))
            assert last.output_tokens == len(reader.tokens)


def test_the_observer_sees_it():
    engine = make_engine()
    _, reader = begin(engine, request(max_tokens=50, checkpoints=MOVES))
    for _ in range(4):
        engine.step()
    engine.hand_over(STOPPING)
    assert engine.observer.ended == [(FinishReason.HANDED_OVER, 3, 4)]
    assert len(engine.observer.answers) == 1
    assert len(reader.tokens) == 4


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        (request(max_tokens=50), 1),  # nobody asked for it
        (request(max_tokens=50, checkpoints=MOVES, beam=Beam(2, 1)), 1),
        (NextTokenRequest((1, 2, 3), 100.0), 0),
    ],
    ids=["not asked for", "beam", "look-ahead"],
)
def test_what_cannot_move_is_sent_back_for_later(wanted, steps):
    engine = make_engine()
    progress = engine.open(wanted, reader := Reader())
    engine.arrive(progress)
    for _ in range(steps):
        engine.step()
    assert engine.hand_over(STOPPING) == [reader]
    assert reader.last == Failed(STOPPING)
    assert engine.is_idle


def test_a_long_prompt_that_is_not_read_yet_is_sent_again():
    engine = make_engine()
    _, reader = begin(engine, request([1] * 600, checkpoints=MOVES))
    engine.step()
    assert not reader.events
    engine.hand_over(STOPPING)
    assert reader.events == [Failed(STOPPING)]


def test_a_stream_that_was_resumed_and_waits_moves_on_as_it_came():
    wanted = request(max_tokens=40, checkpoints=MOVES)
    first = make_engine()
    _, reader = begin(first, wanted)
    for _ in range(10):
        first.step()
    first.hand_over(STOPPING)
    (checkpoint,) = reader.of(Checkpoint)
    second = make_engine()
    resumed = replace(wanted, tokens=(), resumed=checkpoint.snapshot)
    _, waiting = begin(second, resumed)
    second.hand_over(STOPPING)
    reported = reader.tokens + moved(waiting, wanted)
    assert reported == run_alone(wanted).tokens


# -- streams whose tokens are pushed ---------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 7, 20])
def test_a_pushed_stream_answers_what_it_has_and_reports_where_it_is(steps):
    engine = make_push_engine()
    caller = Caller(engine)
    caller.push(*TOKENS[:20])
    for _ in range(steps):
        engine.step()
    assert engine.hand_over(STOPPING) == []
    engine.close_input(caller.work, is_handed_over=True)
    run(engine)
    assert caller.reader.last.reason is FinishReason.HANDED_OVER
    (checkpoint,) = caller.reader.of(Checkpoint)
    assert checkpoint.snapshot.made == 20
    other = Caller(make_push_engine(), resumed=checkpoint.snapshot)
    other.push(*TOKENS[20:])
    other.close()
    run(other.engine)
    assert caller.reported + other.reported == labelled(TOKENS).reported


def test_a_pushed_stream_that_was_closed_before_ends_as_it_would():
    engine = make_push_engine()
    caller = Caller(engine)
    caller.push(*TOKENS[:5])
    caller.close()
    engine.close_input(caller.work, is_handed_over=True)
    run(engine)
    assert caller.reader.last.reason is FinishReason.CLOSED
    assert not caller.reader.of(Checkpoint)
