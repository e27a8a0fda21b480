"""Whose turn it is."""

from dataclasses import dataclass, field

from service.engine.ready_queue import ReadyQueue
from service.engine.shares import Share


@dataclass(eq=False)
class Stream:
    name: str
    share: Share = field(default_factory=Share)
    wants: bool = True


def queue_of(*streams):
    queue = ReadyQueue(lambda stream: stream.wants)
    for stream in streams:
        queue.push(stream)
    return queue


def of(caller, count, weight=1.0):
    return [Stream(f"{caller}{n}", Share(caller, weight)) for n in range(count)]


def names(streams):
    return [stream.name for stream in streams]


def test_where_all_fit_all_are_taken():
    queue = queue_of(*of("a", 3), *of("b", 1))
    assert sorted(names(queue.take(4))) == ["a0", "a1", "a2", "b0"]
    assert (len(queue), queue.take(4)) == (0, [])


def test_callers_take_turns_whatever_the_number_of_their_streams():
    queue = queue_of(*of("a", 6), *of("b", 2))
    assert names(queue.take(4)) == ["a0", "b0", "a1", "b1"]
    assert len(queue) == 4
    assert names(queue.take(4)) == ["a2", "a3", "a4", "a5"]


def test_turns_follow_weights():
    queue = queue_of(*of("heavy", 9, 2.0), *of("light", 9))
    taken = names(queue.take(6))
    assert sum(name.startswith("heavy") for name in taken) == 4


def test_a_caller_that_wanted_nothing_makes_up_for_nothing():
    queue = queue_of(*of("a", 8))
    queue.take(4)
    for stream in of("b", 8):
        queue.push(stream)
    taken = names(queue.take(6))
    assert sum(name.startswith("b") for name in taken) in (3, 4)


def test_what_wants_nothing_any_more_is_passed_over():
    first, *rest = of("a", 4)
    queue = queue_of(first, *rest)
    first.wants = False
    assert names(queue.take(2)) == ["a1", "a2"]
    assert names(queue.take(2)) == ["a3"]
