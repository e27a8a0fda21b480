import random
from dataclasses import dataclass

import pytest

from service.engine.dynamic_batcher import BatchDone, BatchEngine, BatchFailed
from service.engine.errors import EngineFailed
from service.engine.shares import Share

BROKEN = EngineFailed("broken")


@dataclass(frozen=True)
class Item:
    text: str

    @property
    def length(self):
        return len(self.text)


class Doubler:
    def __init__(self):
        self.batches = []
        self.pieces = 1

    def run(self, items):
        self.batches.append([item.text for item in items])
        for _ in range(self.pieces - 1):
            yield None
        yield [item.text * 2 for item in items]


class Heard:
    def __init__(self):
        self.batches = []
        self.waits = 0
        self.answers = []

    def batch_ran(self, rows, tokens, seconds):
        self.batches.append((rows, tokens))

    def began(self, queue_seconds):
        self.waits += 1

    def answered(self, queue_seconds, compute_seconds):
        self.answers.append((queue_seconds, compute_seconds))


def make_engine(max_rows=3):
    return BatchEngine(Doubler(), max_rows, lambda: 0.0, Heard())


class Asker:
    """A sink with a name; remembers its one answer."""

    def __init__(self, name):
        self.name = name
        self.answer = None

    def put(self, event):
        assert self.answer is None, "answered twice"
        self.answer = event


def submit(engine, name, *texts):
    job = engine.open([Item(text) for text in texts], Asker(name))
    engine.arrive(job)
    return job


def answers_of(sinks):
    return {sink.name: sink.answer for sink in sinks}


def drain(engine):
    answered = []
    while not engine.is_idle:
        answered += engine.step()
    return answers_of(answered)


def test_results_come_in_the_order_of_the_request():
    """Many texts of one request are spread over batches and put together again."""
    engine = make_engine()
    submit(engine, "a", "one", "three", "x", "eleven", "yy")
    assert drain(engine) == {"a": BatchDone(["oneone", "threethree", "xx", "eleveneleven", "yyyy"])}
    assert engine.observer.batches == [(3, 10), (2, 7)]
    assert engine.observer.waits == 1


def test_requests_share_batches_with_texts_of_like_length():
    engine = make_engine()
    submit(engine, "a", "abc", "a long text indeed")
    submit(engine, "b", "abcd", "ab")
    answers = drain(engine)
    assert engine.runner.batches == [["abc", "abcd", "ab"], ["a long text indeed"]]
    assert answers["b"] == BatchDone(["abcdabcd", "abab"])


def test_the_oldest_text_is_never_passed_over():
    engine = make_engine(max_rows=1)
    submit(engine, "old", "a text that is long")
    for number in range(5):
        submit(engine, number, "short")
    engine.step()
    assert engine.runner.batches == [["a text that is long"]]


def test_a_cancelled_job_runs_no_further_text():
    engine = make_engine(max_rows=2)
    gone = submit(engine, "gone", "aa", "aa", "aa")
    submit(engine, "kept", "aa")
    engine.step()
    engine.cancel(gone)
    assert drain(engine) == {"kept": BatchDone(["aaaa"])}
    assert sum(map(len, engine.runner.batches)) == 3


def test_failing_answers_each_job_once():
    engine = make_engine()
    submit(engine, "a", "x", "y")
    submit(engine, "b", "z")
    broken = BatchFailed(BROKEN)
    assert answers_of(engine.fail(BROKEN)) == {"a": broken, "b": broken}
    assert engine.is_idle


def test_a_failed_run_leaves_its_texts_to_be_told():
    engine = make_engine()
    submit(engine, "a", "x", "y")
    engine.runner.run = lambda items: (1 / 0 for _ in items)
    with pytest.raises(ZeroDivisionError):
        engine.step()
    assert answers_of(engine.fail(BROKEN)) == {"a": BatchFailed(BROKEN)}


def test_a_batch_in_pieces_is_a_step_each():
    engine = make_engine()
    engine.runner.pieces = 3
    submit(engine, "a", "x", "y")
    assert [engine.step() for _ in range(2)] == [[], []]
    assert drain(engine) == {"a": BatchDone(["xx", "yy"])}
    assert len(engine.observer.batches) == 1


def test_a_batch_that_nobody_waits_for_ends_between_its_pieces():
    engine = make_engine()
    engine.runner.pieces = 100
    first, second = submit(engine, "a", "x"), submit(engine, "b", "y")
    engine.step()
    engine.cancel(first)
    assert not engine.is_idle
    engine.cancel(second)
    assert engine.is_idle


def test_a_wait_ends_when_the_first_text_of_a_request_runs():
    """Whichever of its texts that is."""
    engine = make_engine(max_rows=1)
    submit(engine, "a", "old")
    job = submit(engine, "b", "a much longer text", "new")
    engine.step()
    assert engine.observer.waits == 1
    engine.step()
    assert (engine.observer.waits, job.queue_seconds) == (2, 0.0)
    drain(engine)
    assert engine.observer.waits == 2


def test_a_batch_is_at_most_half_padding():
    """A long text does not make many short ones cost as much as it does."""
    engine = make_engine(max_rows=8)
    submit(engine, "short", *("ab" for _ in range(4)))
    submit(engine, "long", "x" * 100)
    submit(engine, "more", "abc")
    drain(engine)
    assert [sorted(map(len, batch)) for batch in engine.runner.batches] == [[2, 2, 2, 2, 3], [100]]


class Ticking:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def timed():
    """An engine whose batches take ten seconds, during which a test may submit."""
    clock = Ticking()
    engine = BatchEngine(Doubler(), 4, clock, Heard(), delay_share=0.5)
    real, during = engine.runner.run, []

    def run(items):
        results = list(real(items))
        for arrival in during:
            clock.now += 10.0 / (len(during) + 1)
            arrival()
        clock.now += 10.0 / (len(during) + 1)
        yield from results

    engine.runner.run = run
    engine.clock_of_test, engine.during = clock, during
    return engine


def test_whoever_finds_the_engine_idle_does_not_wait(timed):
    submit(timed, "a", "x")
    assert timed.batching_delay == 0
    timed.step()
    timed.clock_of_test.now += 1.0
    submit(timed, "b", "x")
    assert timed.batching_delay == 0


def test_what_came_up_during_a_batch_waits_for_company(timed):
    """Two came within ten seconds, so another is due within half a batch's time."""
    submit(timed, "a", "x")
    timed.during += [lambda: submit(timed, "b", "x"), lambda: submit(timed, "c", "x")]
    timed.step()
    timed.during.clear()
    assert timed.batching_delay == 0, "a gap of five seconds is not below the five that are given"
    timed.delay_share = 0.8
    assert timed.batching_delay == pytest.approx(8.0)
    timed.clock_of_test.now += 7.0
    assert timed.batching_delay == pytest.approx(1.0)
    timed.clock_of_test.now += 2.0
    assert timed.batching_delay == 0
    submit(timed, "d", "x", "y", "z")
    timed.clock_of_test.now -= 9.0
    assert timed.batching_delay == 0, "the batch is full"


def test_jobs_whose_results_are_lost_on_their_way_are_told():
    engine = make_engine()
    job = submit(engine, "a", "x")
    engine.observer.batch_ran = None
    with pytest.raises(TypeError):
        drain(engine)
    assert engine.fail(BROKEN) == [job.sink]
    assert job.sink.answer == BatchFailed(BROKEN)


def submit_as(engine, share, name, *texts):
    job = engine.open([Item(text) for text in texts], Asker(name), share)
    engine.arrive(job)
    return job


def rows_of(batch):
    return {
        letter: sum(text[0] == letter for text in batch) for text in batch for letter in text[0]
    }


def test_callers_share_batches_in_proportion_to_their_weights():
    engine = make_engine(max_rows=8)
    submit_as(engine, Share("greedy"), "g", *["g"] * 100)
    submit_as(engine, Share("heavy", weight=3.0), "h", *["h"] * 100)
    for _ in range(4):
        engine.step()
    assert [rows_of(batch) for batch in engine.runner.batches] == [{"g": 2, "h": 6}] * 4


def test_a_polite_text_is_in_the_next_batch():
    engine = make_engine(max_rows=4)
    submit_as(engine, Share("greedy"), "g", *["g"] * 1000)
    for _ in range(5):
        engine.step()
    submit_as(engine, Share("polite"), "p", "p")
    engine.step()
    assert rows_of(engine.runner.batches[-1]) == {"g": 3, "p": 1}


def test_a_polite_text_of_another_length_has_the_batch_after():
    engine = make_engine(max_rows=4)
    submit_as(engine, Share("greedy"), "g", *["g"] * 1000)
    for _ in range(5):
        engine.step()
    submit_as(engine, Share("polite"), "p", "p" * 100)
    engine.step()
    engine.step()
    assert any("p" * 100 in batch for batch in engine.runner.batches[-2:])


def test_a_higher_priority_of_one_caller_runs_first():
    engine = make_engine(max_rows=2)
    submit_as(engine, Share("a"), "low", "l", "l")
    submit_as(engine, Share("a", priority=1), "high", "h", "h")
    engine.step()
    assert engine.runner.batches == [["h", "h"]]


@pytest.mark.parametrize("seed", range(20))
def test_random_lives_of_texts(seed):
    """Arrivals of callers and priorities, cancels and steps: each text runs once, or never when
    its job was cancelled first; batches keep their limits; nothing is left over."""
    choose = random.Random(seed)
    engine, jobs, cancelled = make_engine(max_rows=4), [], set()
    for number in range(200):
        if choose.random() < 0.6:
            share = Share(choose.choice("abc"), choose.choice((1.0, 2.5)), choose.randint(0, 2))
            texts = ["x" * choose.randint(1, 40) for _ in range(choose.randint(1, 5))]
            jobs.append(submit_as(engine, share, number, *texts))
        elif choose.random() < 0.3 and jobs:
            job = choose.choice(jobs)
            if job.sink.answer is None:
                cancelled.add(job)
            engine.cancel(job)
        elif not engine.is_idle:
            engine.step()
    drain(engine)
    assert len(engine._waiting) == 0
    for job in jobs:
        wanted = None if job in cancelled else BatchDone([i.text * 2 for i in job.items])
        assert job.sink.answer == wanted
    for batch in engine.runner.batches:
        assert len(batch) <= 4
        assert max(map(len, batch)) * len(batch) <= 2 * sum(map(len, batch))


def test_a_burst_that_leaves_is_forgotten():
    engine = make_engine()
    jobs = [submit_as(engine, Share(f"{n % 5}"), n, "x" * (n % 50 + 1)) for n in range(5000)]
    for job in reversed(jobs):
        engine.cancel(job)
    assert engine.is_idle
    assert not engine._waiting.everything()
