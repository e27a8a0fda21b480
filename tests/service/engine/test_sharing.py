"""Callers share rows and prefill; the real scheduler, and engines on arithmetic."""

import random
from itertools import pairwise

import pytest

from service.engine.fair_queue import LEAST_RUN, TURN
from service.engine.prefill import LONG_PAUSE_EVERY_STEPS, LONG_PAUSE_SECONDS
from service.engine.requests import Beam, SampleFinished
from service.engine.scheduler import Phase, PrefillPolicy, Prompt, ScheduledSequence, Scheduler
from service.engine.shares import Share
from tests.service.engine import simulation
from tests.service.engine.fakes import Reader, make_engine, request, run, run_alone
from tests.service.engine.test_online_tagging import Caller as Pusher
from tests.service.engine.test_online_tagging import labelled
from tests.service.engine.test_online_tagging import make_engine as make_push_engine

GREEDY, POLITE = Share("greedy"), Share("polite")


def stream(share, tokens=0, group=1, prompt=None):
    return ScheduledSequence(prompt or Prompt(range(tokens)), group, share=share)


def scheduler(capacity=4, **policy):
    return Scheduler(capacity, PrefillPolicy(whole=False, **policy))


def step(s, seconds=1e9, lost=None):
    """lost: where the streams go that lose their rows."""
    s.begin_step()
    for one in s.preemptions():
        s.preempt(one)
        if lost is not None:
            lost.append(one)
    plan = s.schedule(seconds)
    for chunk in plan.prefill:
        s.prefilled(chunk)
    for one in plan.admits:
        s.admit(one)
    return plan


def arrive(s, *streams):
    for one in streams:
        s.arrive(one)


def held(s, share):
    return sum(one.share is share for one in s.rows)


@pytest.mark.parametrize("mix", simulation.MIXES, ids=lambda mix: mix.__name__)
def test_mixes_of_callers_get_what_is_promised(mix):
    mix(1500 if mix is simulation.many_callers else 4600, seed=3)


def test_one_caller_alone_has_every_row_and_its_own_order():
    s, streams = scheduler(), [stream(GREEDY) for _ in range(9)]
    arrive(s, *streams)
    for _ in range(3 * TURN):
        step(s)
    assert s.rows == streams[:4]
    assert s.waiting == streams[4:]


def test_a_newcomer_gets_a_row_within_a_few_steps():
    s = scheduler()
    arrive(s, *[stream(GREEDY) for _ in range(99)])
    step(s)
    polite = stream(POLITE)
    arrive(s, polite)
    for _ in range(LEAST_RUN + 1):
        step(s)
    assert polite.phase is Phase.RUNNING
    assert held(s, GREEDY) == 3


def test_rows_are_taken_down_to_the_fair_share_and_then_left():
    s, lost = scheduler(capacity=8), []
    arrive(s, *[stream(GREEDY) for _ in range(99)])
    step(s)
    arrive(s, *[stream(POLITE) for _ in range(99)])
    for _ in range(10 * TURN):
        step(s, lost=lost)
    assert (held(s, GREEDY), held(s, POLITE)) == (4, 4)
    assert len(lost) == 4


def test_weights_are_kept():
    s, heavy = scheduler(capacity=8), Share("heavy", weight=3.0)
    arrive(s, *[stream(GREEDY) for _ in range(99)], *[stream(heavy) for _ in range(99)])
    step(s)
    assert (held(s, GREEDY), held(s, heavy)) == (2, 6)


def test_a_higher_priority_comes_first_within_its_caller_alone():
    s, urgent = scheduler(capacity=2), Share("greedy", priority=5)
    arrive(s, *[stream(GREEDY) for _ in range(3)])
    first, other = stream(urgent), stream(POLITE)
    arrive(s, first, other)
    step(s)
    assert s.rows == [first, other]


def test_a_preempted_stream_is_not_taken_again_at_once():
    """Polite streams of a few steps come and go: each time another one gives up its row."""
    s, streams = scheduler(), [stream(GREEDY) for _ in range(9)]
    arrive(s, *streams)
    lost = []
    for _ in range(40):
        polite = stream(POLITE)
        arrive(s, polite)
        for _ in range(LEAST_RUN + 2):
            step(s, lost=lost)
        s.leave(polite)
        step(s, lost=lost)  # its row goes back
    assert len(lost) >= 20
    assert all(one is not other for one, other in pairwise(lost))


def test_streams_that_take_rows_together_are_not_split():
    s, polite = scheduler(), [stream(POLITE, group=2) for _ in range(2)]
    beam = [stream(GREEDY, group=4) for _ in range(4)]
    arrive(s, *beam)
    step(s)
    arrive(s, *polite)
    for _ in range(2 * TURN):
        step(s)
    assert s.rows == beam
    for one in beam:
        s.leave(one)
    step(s)
    assert s.rows == polite


def test_rows_for_streams_that_take_them_together_are_taken_together():
    s, beam = scheduler(), [stream(POLITE, group=2) for _ in range(2)]
    arrive(s, *[stream(GREEDY) for _ in range(9)])
    step(s)
    arrive(s, *beam)
    for _ in range(LEAST_RUN + 1):
        step(s)
        assert held(s, POLITE) in (0, 2)
    assert held(s, POLITE) == 2


def test_a_row_that_waits_for_a_long_prompt_is_given_up_too():
    """What was read of that prompt is kept."""
    s = scheduler(chunk_tokens=4)
    long = [stream(GREEDY, tokens=1000) for _ in range(4)]
    arrive(s, *long)
    step(s)
    polite = stream(POLITE, tokens=4)
    arrive(s, polite)
    step(s)
    assert polite.phase is Phase.RUNNING
    assert sorted(one.phase.value for one in long) == ["begun"] * 3 + ["returning"]
    assert all(one.prompt.prefilled for one in long)


def test_a_short_prompt_is_not_read_behind_long_ones():
    s = scheduler(capacity=65)
    s.cost.observe(1, 1, 1.0)
    arrive(s, stream(POLITE))
    step(s)
    arrive(s, *[stream(GREEDY, tokens=8000) for _ in range(60)])
    step(s, 300.0)
    short = stream(POLITE, tokens=40)
    arrive(s, short)
    steps = 0
    while short.phase is not Phase.RUNNING:
        step(s, 300.0)
        steps += 1
    assert steps <= 3


def test_what_was_read_is_shared_by_time_and_not_by_prompts():
    s = scheduler(capacity=40)
    s.cost.observe(1, 1, 1.0)
    arrive(s, stream(POLITE))
    step(s)
    one = stream(POLITE, tokens=10**6)
    many = [stream(GREEDY, tokens=10**6) for _ in range(30)]
    arrive(s, one, *many)
    for _ in range(200):
        step(s, 200.0)
    greedy = sum(other.prompt.prefilled for other in many)
    assert one.prompt.prefilled == pytest.approx(greedy, rel=0.1)


def test_a_burst_that_leaves_is_forgotten():
    s = scheduler()
    streams = [stream(Share(f"caller {n % 7}", priority=n % 3)) for n in range(8000)]
    arrive(s, *streams)
    step(s)
    random.Random(1).shuffle(streams)
    for one in streams:
        s.leave(one)
    assert s.is_idle
    assert s.free_rows == 4
    assert not s.everyone()


@pytest.mark.parametrize("seed", range(8))
def test_no_preempted_request_changes(seed):
    """Callers come and go, rows change hands: every request gets what it gets alone."""
    choose = random.Random(seed)
    engine, wanted = make_engine(capacity=6), []
    for number in range(40):
        options = {"frequency_penalty": 0.4} if number % 3 else {"stop": ("ab",)}
        if number % 9 == 0:
            options = {"beam": Beam(2, 1)}
        one = request((1, number % 7), max_tokens=60, seed=number, **options)
        reader, share = Reader(), choose.choice((GREEDY, GREEDY, GREEDY, POLITE, Share("other")))
        engine.arrive(engine.open(one, reader, share))
        wanted.append((one, reader))
        for _ in range(choose.randrange(6)):
            engine.step()
    run(engine)
    assert engine.observer.preemptions
    assert engine.scheduler.free_rows == 6
    for one, reader in wanted:
        alone = run_alone(one)
        assert reader.tokens == alone.tokens, one
        assert reader.of(SampleFinished) == alone.of(SampleFinished)


def test_a_pushed_stream_loses_its_row_and_no_token():
    """The token that it was to read next is read once, when it has a row again."""
    engine = make_push_engine(capacity=2)
    tokens = [number % 19 for number in range(120)]
    callers = [Pusher(engine, share=Share("greedy")) for _ in range(4)]
    for caller in callers:
        caller.push(*tokens)
    for _ in range(2 * LEAST_RUN):
        engine.step()
    late = Pusher(engine, share=Share("polite"))
    late.push(*tokens)
    for _ in range(LEAST_RUN + 2):
        engine.step()
    assert late.reader.tokens
    run(engine)
    assert engine.observer.preemptions
    for caller in (*callers, late):
        assert caller.reported == labelled(tokens).reported


class Meter:
    """A clock that stands still but for what graphs take: a step and each token that is read.

    pauses: what was read before each step took, in seconds; reads: each run of the graph.
    """

    def __init__(self, engine):
        self.now, self.pauses, self.reads = 100.0, [0.0], []
        self.runner, engine.clock = engine.runner, self
        self.prefill, self.step = engine.runner.prefill, engine.runner.step
        engine.runner.prefill, engine.runner.step = self.timed_prefill, self.timed_step

    def __call__(self):
        return self.now

    def timed_prefill(self, tokens, states):
        seconds = max(map(len, tokens)) * 0.0001 * (1 + len(tokens))
        self.now += seconds
        self.pauses[-1] += seconds
        self.reads.append(seconds)
        return self.prefill(tokens, states)

    def timed_step(self, side, rows):
        self.now += 0.0005
        self.pauses.append(0.0)
        self.step(side, rows)


@pytest.mark.parametrize("begin_id", [None, 7])
def test_no_queue_of_long_prompts_holds_a_running_stream_up(begin_id):
    """Not even with sources, of which only the number can be cut."""
    engine = make_engine(capacity=64, begin_id=begin_id)
    meter, length = Meter(engine), 15 if begin_id else 300
    engine.warm_prefill([(1, 16), (4, 16), (16, 16)])
    meter.pauses[:] = [0.0]
    engine.arrive(engine.open(request(max_tokens=10**6), Reader()))
    engine.step()
    for seed in range(70):
        engine.arrive(engine.open(request([1] * length, max_tokens=2, seed=seed), Reader()))
    steps = 0
    while engine.scheduler.queue_length or engine.scheduler.begun:
        engine.step()
        steps += 1
    longer = [pause for pause in meter.pauses if pause > 1.2 * engine.prefill_budget.usual_pause]
    assert len(longer) <= 1 + steps // LONG_PAUSE_EVERY_STEPS
    assert max(longer, default=0.0) <= 1.2 * LONG_PAUSE_SECONDS


def test_a_run_of_prompts_is_bounded_while_nothing_decodes():
    engine = make_engine(capacity=64)
    meter = Meter(engine)
    engine.warm_prefill([(1, 16), (4, 16), (16, 16)])
    meter.reads.clear()
    for seed in range(64):
        engine.arrive(engine.open(request([1] * 500, max_tokens=2, seed=seed), Reader()))
    while not engine.scheduler.rows:
        engine.step()
    assert max(meter.reads) <= 1.2 * engine.scheduler.policy.idle_seconds
