import random

import pytest

from service.engine.scheduler import (
    NO_ROW,
    Phase,
    PrefillPolicy,
    Prompt,
    ScheduledSequence,
    Scheduler,
)

ENOUGH = 1e9


def stream(tokens=4, group=1):
    """``tokens``: to be read by the prefill graph."""
    return ScheduledSequence(Prompt(range(tokens)), group)


def scheduler(capacity=4, whole=False, **policy):
    return Scheduler(capacity, PrefillPolicy(whole=whole, **policy))


def run(plan, scheduler):
    """What an engine does with a plan."""
    for chunk in plan.prefill:
        scheduler.prefilled(chunk)
    for admitted in plan.admits:
        scheduler.admit(admitted)
    return plan


def step(scheduler, seconds=ENOUGH):
    return run(scheduler.schedule(seconds), scheduler)


def test_a_prompt_with_nothing_to_prefill_takes_a_row_at_once():
    """Its only token goes through the step graph."""
    s, one = scheduler(), stream(tokens=0)
    s.arrive(one)
    plan = step(s)
    assert (plan.begins, plan.prefill, plan.admits) == ([one], [], [one])
    assert one.row == 0


def beside_others(s):
    """A stream runs, and a token of one prompt takes a second."""
    s.arrive(stream(tokens=0))
    step(s)
    s.cost.observe(1, 1, 1.0)
    return s


def test_newcomers_are_read_on_loan_where_that_reads_them_whole():
    s = beside_others(scheduler(capacity=8))
    s.arrive(stream(tokens=20))
    assert [chunk.count for chunk in s.schedule(-1.0, loan=30.0).prefill] == [20]
    s.arrive(stream(tokens=20))
    assert s.schedule(-1.0, loan=30.0).prefill == []
    assert [chunk.count for chunk in s.schedule(-1.0, loan=40.0).prefill] == [20, 20]


def test_a_long_prompt_is_read_by_what_was_earned_alone():
    s = beside_others(scheduler(capacity=8))
    s.arrive(stream(tokens=1000))
    assert [chunk.count for chunk in s.schedule(10.0, loan=30.0).prefill] == [10]


def test_the_rest_of_a_long_prompt_is_not_read_on_loan():
    s = beside_others(scheduler(capacity=8))
    s.arrive(stream(tokens=30))
    (chunk,) = s.schedule(20.0, loan=20.0).prefill
    s.prefilled(chunk)
    assert s.schedule(-1.0, loan=20.0).prefill == []
    assert [chunk.count for chunk in s.schedule(9.0, loan=20.0).prefill] == [9]


def test_a_source_is_prefilled_whole():
    s = scheduler(whole=True, chunk_tokens=2)
    s.arrive(stream(tokens=5))
    (chunk,) = s.schedule(ENOUGH).prefill
    assert chunk.count == 5


def test_a_long_prompt_is_read_in_chunks_between_steps():
    s = scheduler(chunk_tokens=4)
    s.arrive(stream(tokens=10))
    counts = []
    while not s.rows:
        counts += [chunk.count for chunk in step(s).prefill]
    assert counts == [4, 4, 2]


def test_prefill_is_bounded_by_time_while_streams_decode():
    """A token of one prompt takes a second: nine seconds are nine tokens, and none is none."""
    s = scheduler(capacity=10)
    s.arrive(stream(tokens=0))
    step(s)
    s.cost.observe(1, 10, 10.0)
    s.arrive(stream(tokens=100))
    assert [chunk.count for chunk in step(s, 9.0).prefill] == [9]
    assert step(s, 0.0).prefill == []
    assert [chunk.count for chunk in step(s, -1.0).prefill] == []


def test_prompts_are_read_side_by_side():
    """Rows cost little: with time for it, all go on together; with less, the oldest."""
    s = scheduler(capacity=10)
    s.arrive(stream(tokens=0))
    step(s)
    s.cost.observe(1, 1, 1.0)
    s.cost.observe(4, 1, 2.0)
    for _ in range(4):
        s.arrive(stream(tokens=100))
    assert [chunk.count for chunk in s.schedule(20.0).prefill] == [10] * 4
    assert [chunk.count for chunk in s.schedule(5.0).prefill] == [5]
    assert [chunk.count for chunk in s.schedule(0.1).prefill] == [8]


def test_many_waiting_make_prefill_urgent():
    s = scheduler(capacity=10)
    assert s.queue_pressure == 1.0
    s.arrive(stream(tokens=0))
    step(s)
    s.arrive(stream(tokens=9))
    alone = s.queue_pressure
    s.arrive(stream(tokens=9))
    assert s.queue_pressure > alone > 1.0


def test_prefill_is_bounded_when_nobody_decodes_too():
    """By a time of its own: whoever arrives meanwhile waits for the run under way."""
    s = scheduler(capacity=10, idle_seconds=4.0)
    s.cost.observe(4, 1, 1.0)
    for _ in range(6):
        s.arrive(stream(tokens=9))
    assert [chunk.count for chunk in s.schedule(-1.0).prefill] == [4] * 4


def read_all(s):
    """One step in which there is time for everything."""
    s.begin_step()
    s.preemptions()
    plan = s.schedule(1e9)
    for chunk in plan.prefill:
        s.prefilled(chunk)
    for one in plan.admits:
        s.admit(one)
    return plan


def full(capacity=64, waiting=100):
    """All rows run and many prompts wait."""
    s = scheduler(capacity=capacity)
    s.cost.observe(1, 1, 1e-6)
    running = [stream(tokens=9) for _ in range(capacity)]
    for one in (*running, *(stream(tokens=9) for _ in range(waiting))):
        s.arrive(one)
    read_all(s)
    assert s.rows == running
    return s, running


def test_prompts_wait_for_one_another_while_rows_come_free_one_by_one():
    s, running = full()
    begun = []
    for one in running[:6]:
        s.leave(one)
        begun.append(len(read_all(s).begins))
    assert begun == [0, 0, 0, 0, 0, 6]


def test_prompts_do_not_wait_for_one_another_for_long():
    s, running = full()
    s.leave(running[0])
    assert [len(read_all(s).begins) for _ in range(9)] == [0] * 8 + [1]


@pytest.mark.parametrize("waiting", [0, 1])
def test_where_there_is_a_row_for_everybody_nobody_waits_for_others(waiting):
    s, running = full(waiting=waiting)
    s.leave(running[0])
    if not waiting:
        s.arrive(stream(tokens=9))
    assert len(read_all(s).begins) == 1


def test_what_is_not_read_waits_for_no_other_prompt():
    """A stream that comes back, and one that has nothing to read."""
    s, running = full(waiting=0)
    s.pause(running[0])
    for _ in range(3):
        s.arrive(stream(tokens=9))
    s.leave(running[1])
    s.resume(running[0])
    assert running[0] in read_all(s).admits
    s, running = full(waiting=0)
    for _ in range(3):
        s.arrive(stream(tokens=0))
    s.leave(running[1])
    assert len(read_all(s).admits) == 1


def test_streams_wait_when_every_row_is_taken():
    s = scheduler(capacity=2)
    streams = [stream(tokens=0) for _ in range(3)]
    for one in streams:
        s.arrive(one)
    step(s)
    assert s.waiting == [streams[2]]
    s.leave(streams[0])
    assert step(s).admits == [streams[2]]


def test_a_gang_begins_together_or_not_at_all():
    s = scheduler(capacity=3)
    single, group = stream(0), [stream(0, group=3) for _ in range(3)]
    for one in (single, *group):
        s.arrive(one)
    assert step(s).admits == [single]
    s.leave(single)
    assert step(s).admits == group


def test_samples_of_one_prompt_are_admitted_once_it_is_read():
    s = scheduler(capacity=2)
    prompt = Prompt(range(5))
    samples = [ScheduledSequence(prompt) for _ in range(3)]
    for one in samples:
        s.arrive(one)
    plan = step(s)
    assert [chunk.count for chunk in plan.prefill] == [5]
    assert plan.admits == samples[:2]
    s.leave(samples[0])
    plan = step(s)
    assert (plan.prefill, plan.admits) == ([], [samples[2]])


def test_the_last_row_fills_the_hole():
    s = scheduler()
    first, second, third = streams = [stream(tokens=0) for _ in range(3)]
    for one in streams:
        s.arrive(one)
    step(s)
    assert s.leave(first) == (0, 2)
    assert s.rows == [third, second]
    assert (first.row, second.row, third.row) == (NO_ROW, 1, 0)
    assert s.leave(second) == (1, 1)


def test_a_paused_stream_comes_back_before_new_ones():
    s = scheduler(capacity=1)
    first, second = stream(0), stream(0)
    s.arrive(first)
    step(s)
    assert s.pause(first) == (0, 0)
    assert s.is_idle
    s.arrive(second)
    s.resume(first)
    assert step(s).admits == [first]
    assert s.waiting == [second]


def test_a_parked_stream_takes_no_row_before_it_is_resumed():
    s, one = scheduler(), stream(tokens=0)
    s.park(one)
    assert s.is_idle
    s.resume(one)
    assert step(s).admits == [one]


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("whole", [False, True])
def test_random_lives_of_streams(seed, whole):
    """Arrive, prefill, step, pause, come back, cancel, expire, finish, in any order.

    The model: a set of the living, each in one phase. After every action rows are dense and
    each stream knows its own; nobody is in two places; a prompt is read once, in order, before
    its streams hold rows; who begins first came first; all end in the end.
    """
    choose = random.Random(seed)
    s = scheduler(choose.randint(2, 5), whole, chunk_tokens=3, rows=3)
    alive, arrivals, begun = [], [], []
    for _ in range(300):
        action = choose.random()
        if action < 0.25:
            prompt, group = Prompt(range(choose.randint(0, 12))), choose.choice((1, 1, 1, 2))
            count = group if group > 1 else choose.randint(1, 3)
            group = [ScheduledSequence(prompt, group) for _ in range(count)]
            for one in group:
                s.arrive(one)
            alive.append(group)
            arrivals += group
        elif action < 0.28:
            alive.append([stream(tokens=0)])
            s.park(alive[-1][0])
        elif action < 0.4 and alive:
            # A cancel and a deadline are the same to the scheduler: a whole request leaves.
            for one in alive.pop(choose.randrange(len(alive))):
                held = one.row
                moved = s.leave(one)
                assert (moved is None) == (held == NO_ROW)
                assert moved is None or moved == (held, len(s.rows))
        elif action < 0.5 and s.rows:
            one = choose.choice(s.rows)
            if one.group == 1:
                s.pause(one)
        elif action < 0.6 and s.paused:
            s.resume(choose.choice(sorted(s.paused, key=id)))
        else:
            s.cost.observe(1, 1, choose.choice((0.1, 1.0)))
            plan = s.schedule(choose.choice((-1.0, 0.0, 2.0, 50.0)))
            begun += plan.begins
            for chunk in plan.prefill:
                assert 0 < chunk.count <= chunk.prompt.left
            assert len({id(chunk.prompt) for chunk in plan.prefill}) == len(plan.prefill) <= 3
            run(plan, s)
            assert all(one.prompt.left == 0 for one in plan.admits)
            first = next(iter(s.waiting), None)
            assert not (s.free_rows and s.has_returning), "a row is free and someone waits"
            assert not (first and first.group <= s.free_rows)
        everyone = s.everyone()
        assert len(everyone) == len(set(everyone))
        assert set(everyone) == {one for group in alive for one in group}
        assert [one.row for one in s.rows] == list(range(len(s.rows)))
        assert len(s.rows) + len(s.begun) <= s.capacity
        assert all((one.row == NO_ROW) == (one.phase is not Phase.RUNNING) for one in everyone)
    order = [arrivals.index(one) for one in begun]
    assert order == sorted(order)
    assert len(set(order)) == len(order)
    for one in list(s.paused):
        s.resume(one)
    for _ in range(2000):
        if s.is_idle:
            break
        step(s)
        for one in list(s.rows):
            s.leave(one)
    assert s.is_idle
    assert s.free_rows == s.capacity
