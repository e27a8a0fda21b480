"""What engines record of each request: how long it waited, and how long they worked on it.

In these tests a step takes 1 s, reading prompts 0.25 s, and nothing else any time.
"""

from dataclasses import dataclass

import pytest

from service.engine.decode import GenerateEngine
from service.engine.dynamic_batcher import BatchEngine
from service.engine.errors import EngineFailed
from service.engine.online_tagging import TURN, OnlineTagEngine
from service.engine.requests import Beam, Finished, TagRequest
from service.engine.step_engine import GenerationModel
from tests.service.engine.fakes import (
    HIDDEN,
    VOCABULARY,
    FakeRunner,
    Reader,
    Recorder,
    request,
    run,
)

STEP, PRIME = 1.0, 0.25
PIECES = [chr(ord("a") + token) for token in range(VOCABULARY)]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class TimedRunner(FakeRunner):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def prefill(self, tokens, states):
        self.clock.now += PRIME
        return super().prefill(tokens, states)

    def step(self, side, rows):
        self.clock.now += STEP
        super().step(side, rows)


def make_engine(capacity=8):
    model = GenerationModel((HIDDEN,), None, None, (PIECES, PIECES))
    clock = Clock()
    return GenerateEngine(model, TimedRunner(clock), capacity, clock, Recorder())


def submit(engine, reader=None, **options):
    options.setdefault("max_tokens", 4)
    work = engine.open(request(**options), reader or Reader())
    engine.arrive(work)
    return work


def times(work):
    """What a request's own record says of it, which its statistics are made of."""
    return work.queue_seconds, work.compute_seconds


def test_a_request_is_reported_once_with_its_wait_and_its_steps():
    engine = make_engine()
    work = submit(engine)
    engine.clock.now += 3.0
    run(engine)
    assert engine.observer.answers == [times(work)] == [(3.0, PRIME + 4 * STEP)]


def test_a_request_knows_its_times_when_its_last_event_is_put():
    """Whoever reads it may do so before the step is over."""
    engine, seen = make_engine(), []

    class Looking(Reader):
        def put(self, event):
            super().put(event)
            seen.append((type(event), *times(work)))

    work = submit(engine, Looking(), samples=2, max_tokens=2)
    engine.clock.now += 3.0
    run(engine)
    assert seen[-1] == (Finished, 3.0, PRIME + 2 * STEP)
    assert {answer[1:] for answer in seen[:-1]} == {(0.0, 0.0)}


def test_time_between_steps_counts_for_nobody():
    engine = make_engine()
    submit(engine)
    while not engine.is_idle:
        engine.step()
        engine.clock.now += 50.0
    assert engine.observer.answers == [(0.0, PRIME + 4 * STEP)]


def test_a_wait_lasts_until_there_is_a_row():
    engine = make_engine(capacity=1)
    submit(engine, max_tokens=4)
    submit(engine, max_tokens=2)
    run(engine)
    assert engine.observer.answers == [
        (0.0, PRIME + 4 * STEP),
        (PRIME + 4 * STEP, PRIME + 2 * STEP),
    ]


def test_each_of_those_that_run_together_gets_the_whole_of_their_steps():
    engine = make_engine()
    submit(engine, max_tokens=2)
    submit(engine, max_tokens=3)
    run(engine)
    assert engine.observer.answers == [(0.0, PRIME + 2 * STEP), (0.0, PRIME + 3 * STEP)]


def test_samples_and_beams_are_one_request():
    engine = make_engine()
    submit(engine, samples=3)
    submit(engine, beam=Beam(width=2, best=2))
    run(engine)
    assert engine.observer.answers == [(0.0, PRIME + 4 * STEP), (0.0, PRIME + 4 * STEP)]


def test_steps_that_pass_while_a_request_pauses_are_not_for_it():
    """Its reader is behind, and others run on."""
    engine, behind = make_engine(), Reader(room=2)
    paused = submit(engine, behind, max_tokens=4)
    submit(engine, max_tokens=20)
    for _ in range(12):
        engine.step()
    assert len(behind.tokens) == 2
    behind.room = 100
    engine.resume(paused)
    run(engine)
    assert times(paused) == (0.0, PRIME + 4 * STEP)
    assert engine.observer.answers == [(0.0, PRIME + 4 * STEP), (0.0, PRIME + 20 * STEP)]


def test_a_request_pauses_when_the_last_of_its_samples_does():
    """Sample 1 pauses after two steps, sample 0 after three; then they need two more."""
    engine, behind = make_engine(), Reader(room=4)
    paused = submit(engine, behind, samples=2, max_tokens=4)
    submit(engine, max_tokens=20)
    for _ in range(12):
        engine.step()
    assert [len([t for t in behind.tokens if t.sample == n]) for n in (0, 1)] == [3, 2]
    behind.room = 100
    engine.resume(paused)
    run(engine)
    assert engine.observer.answers == [(0.0, PRIME + 5 * STEP), (0.0, PRIME + 20 * STEP)]


def test_who_left_or_was_given_up_is_not_reported():
    engine = make_engine()
    gone = submit(engine, max_tokens=50)
    engine.step()
    engine.cancel(gone)
    submit(engine, max_tokens=50)
    engine.step()
    engine.fail(EngineFailed("broken"))
    assert engine.observer.answers == []


# -- pushed tokens --------------------------------------------------------------------------


class Pusher:
    def __init__(self, engine, reader=None):
        self.engine, self.reader = engine, reader or Reader()
        arrived = engine.clock.now
        self.work = engine.open(TagRequest(arrived), self.reader)
        engine.arrive(self.work)

    def push(self, *tokens):
        self.engine.push(self.work, tokens, self.engine.clock.now)


@pytest.fixture
def pushing():
    model = GenerationModel((HIDDEN,), None, None, (PIECES, PIECES))
    clock = Clock()
    return OnlineTagEngine(model, TimedRunner(clock), 2, clock, Recorder())


def test_each_turn_of_a_pushed_stream_is_reported(pushing):
    stream = Pusher(pushing)
    pushing.clock.now += 60.0
    stream.push(1, 2, 3)
    pushing.clock.now += 2.0
    run(pushing)
    pushing.clock.now += 60.0
    stream.push(4)
    run(pushing)
    pushing.close_input(stream.work)
    run(pushing)
    assert pushing.observer.answers == [(2.0, 3 * STEP), (0.0, STEP)]
    assert times(stream.work) == (2.0, 4 * STEP)


def test_what_is_pushed_while_there_is_something_to_read_belongs_to_the_turn(pushing):
    stream = Pusher(pushing)
    stream.push(1, 2)
    pushing.step()
    stream.push(3)
    pushing.close_input(stream.work)
    run(pushing)
    assert pushing.observer.answers == [(0.0, 3 * STEP)]


def test_an_empty_push_begins_no_turn(pushing):
    stream = Pusher(pushing)
    stream.push()
    pushing.clock.now += 60.0
    stream.push(1)
    run(pushing)
    assert pushing.observer.answers == [(0.0, STEP)]


def test_steps_that_pass_while_its_reader_is_behind_are_not_for_a_turn(pushing):
    stream, other = Pusher(pushing, Reader(room=2)), Pusher(pushing)
    stream.push(1, 2, 3)
    other.push(*range(10))
    for _ in range(8):
        pushing.step()
    stream.reader.room = 100
    pushing.resume(stream.work)
    run(pushing)
    assert pushing.observer.answers == [(0.0, 3 * STEP), (0.0, 10 * STEP)]


def test_steps_that_pass_while_another_has_the_row_are_not_for_a_turn(pushing):
    """Two rows, three streams that are longer than what one gets at a time."""
    for _ in range(3):
        Pusher(pushing).push(*[1] * (TURN + 10))
    run(pushing)
    computed = [seconds for _, seconds in pushing.observer.answers]
    assert computed == [(TURN + 10) * STEP] * 3


def test_a_turn_that_is_cancelled_is_not_reported(pushing):
    stream = Pusher(pushing)
    stream.push(1, 2, 3)
    pushing.step()
    pushing.cancel(stream.work)
    assert pushing.observer.answers == []


# -- batches --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    length: int = 1


class Reported:
    def __init__(self):
        self.answers = []
        self.batches = []

    def batch_ran(self, rows, tokens, seconds):
        self.batches.append((rows, seconds))

    def began(self, queue_seconds):
        pass

    def answered(self, queue_seconds, compute_seconds):
        self.answers.append((queue_seconds, compute_seconds))


@pytest.fixture
def batching():
    clock = Clock()

    class TimedBatches:
        def run(self, items):
            clock.now += STEP
            yield None
            clock.now += STEP
            yield list(items)

    return BatchEngine(TimedBatches(), 2, clock, Reported())


def submit_items(engine, count):
    job = engine.open([Item() for _ in range(count)], Reader())
    engine.arrive(job)
    return job


def test_a_request_is_reported_with_all_the_batches_that_held_its_items(batching):
    submit_items(batching, 3)
    batching.clock.now += 5.0
    submit_items(batching, 1)
    run(batching)
    assert batching.observer.answers == [(5.0, 4 * STEP), (2 * STEP, 2 * STEP)]
    assert batching.observer.batches == [(2, 2 * STEP), (2, 2 * STEP)]


def test_a_request_with_two_items_in_a_batch_counts_its_time_once(batching):
    submit_items(batching, 2)
    run(batching)
    assert batching.observer.answers == [(0.0, 2 * STEP)]


def test_a_cancelled_request_is_not_reported(batching):
    kept, gone = submit_items(batching, 1), submit_items(batching, 1)
    batching.step()
    batching.cancel(gone)
    run(batching)
    assert (kept.left, batching.observer.answers) == (0, [(0.0, 2 * STEP)])
