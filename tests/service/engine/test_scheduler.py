import random

import pytest

from service.engine.requests import Generation, Sampling
from service.engine.scheduler import NO_ROW, PrimePolicy, Scheduler, Stream
from service.engine.stopping import StopMatcher


def stream(tokens=4, name=""):
    request = Generation(tuple(range(1, tokens + 1)), Sampling(1.0, 0, 1.0, 0), 9, (), 0.0)
    return Stream(request, name, StopMatcher(()))


def scheduler(capacity=4, whole=False, **policy):
    return Scheduler(capacity, PrimePolicy(whole=whole, steps_last=not whole, **policy))


def run(plan, scheduler):
    """What an engine does with a plan."""
    for chunk in plan.prime:
        scheduler.primed(chunk)
    for admitted in plan.admits:
        scheduler.admit(admitted)
    return plan


def test_a_prompt_of_one_token_takes_a_row_at_once():
    """Its only token goes through the step graph; there is nothing to prime."""
    s = scheduler()
    one = stream(tokens=1)
    s.arrive(one)
    plan = run(s.schedule(), s)
    assert (plan.begins, plan.prime, plan.admits) == ([one], [], [one])
    assert one.row == 0


def test_all_but_the_last_prompt_token_is_primed():
    s = scheduler()
    s.arrive(stream(tokens=5))
    (chunk,) = s.schedule().prime
    assert (chunk.start, chunk.end) == (0, 4)


def test_a_source_is_primed_whole():
    s = scheduler(whole=True, chunk_tokens=2)
    s.arrive(stream(tokens=5))
    (chunk,) = s.schedule().prime
    assert (chunk.start, chunk.end) == (0, 5)


def test_a_long_prompt_is_read_in_chunks_between_steps():
    s = scheduler(chunk_tokens=4)
    long = stream(tokens=11)
    s.arrive(long)
    spans = []
    while not s.rows:
        plan = run(s.schedule(), s)
        spans += [(chunk.start, chunk.end) for chunk in plan.prime]
    assert spans == [(0, 4), (4, 8), (8, 10)]


def test_priming_is_bounded_while_streams_decode():
    """Six prompts of eight padded tokens, a budget of twenty: two at a time when busy."""
    s = scheduler(capacity=10, busy_tokens=20)
    for _ in range(6):
        s.arrive(stream(tokens=9))
    assert len(s.schedule().prime) == 6
    busy = scheduler(capacity=10, busy_tokens=20)
    busy.arrive(stream(tokens=1))
    run(busy.schedule(), busy)
    for _ in range(6):
        busy.arrive(stream(tokens=9))
    assert [len(run(busy.schedule(), busy).prime) for _ in range(4)] == [2, 2, 2, 0]


def test_one_chunk_is_read_even_above_the_budget():
    s = scheduler(whole=True, busy_tokens=2)
    s.arrive(stream(tokens=1))
    run(s.schedule(), s)
    s.arrive(stream(tokens=9))
    assert len(s.schedule().prime) == 1


def test_streams_wait_when_every_row_is_taken():
    s = scheduler(capacity=2)
    streams = [stream(tokens=1) for _ in range(3)]
    for one in streams:
        s.arrive(one)
    run(s.schedule(), s)
    assert list(s.waiting) == [streams[2]]
    s.leave(streams[0])
    assert run(s.schedule(), s).admits == [streams[2]]


def test_the_last_row_fills_the_hole():
    s = scheduler()
    first, second, third = streams = [stream(tokens=1) for _ in range(3)]
    for one in streams:
        s.arrive(one)
    run(s.schedule(), s)
    assert s.leave(first) == (0, 2)
    assert s.rows == [third, second]
    assert (first.row, second.row, third.row) == (NO_ROW, 1, 0)
    assert s.leave(second) == (1, 1)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("whole", [False, True])
def test_random_lives_of_streams(seed, whole):
    """Arrive, begin, prime, step, cancel, finish in any order keep every invariant.

    Rows are dense and each stream knows its own; nobody is in two places; a stream is primed
    once, in order, before it holds a row; who begins first came first; all end in the end.
    """
    choose = random.Random(seed)
    s = scheduler(capacity=choose.randint(1, 5), whole=whole, chunk_tokens=3, busy_tokens=8, rows=3)
    alive: list[Stream] = []
    arrived = begun = 0
    order: dict[str, int] = {}
    for _ in range(300):
        action = choose.random()
        if action < 0.3:
            one = stream(choose.randint(1, 12), str(arrived))
            arrived += 1
            s.arrive(one)
            alive.append(one)
        elif action < 0.5 and alive:
            one = alive.pop(choose.randrange(len(alive)))
            held = one.row
            moved = s.leave(one)
            assert (moved is None) == (held == NO_ROW)
            if moved:
                assert moved == (held, len(s.rows))
        else:
            plan = s.schedule()
            for one in plan.begins:
                order[one.sink] = begun
                begun += 1
            for chunk in plan.prime:
                assert chunk.start == chunk.stream.primed < chunk.end
                assert chunk.stream in s.priming
            run(plan, s)
            for one in plan.admits:
                assert one.primed == s.policy.tokens_to_prime(one)
            assert not (s.free_rows and s.waiting), "a row is free and someone waits"
        assert [one.row for one in s.rows] == list(range(len(s.rows)))
        assert len(s.rows) + len(s.priming) <= s.capacity
        everyone = s.everyone()
        assert len(everyone) == len(set(everyone)) == len(alive)
        assert all(one.row == NO_ROW for one in (*s.waiting, *s.priming))
        assert all(not one.is_gone for one in everyone)
    assert list(order) == sorted(order, key=int)
    while not s.is_idle:
        run(s.schedule(), s)
        for one in list(s.rows):
            s.leave(one)
    assert s.free_rows == s.capacity
