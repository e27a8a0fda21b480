"""Stages come one after the other as memory fills, and go without fluttering."""

import pytest

from service.engine.errors import Overloaded
from service.overload import OverloadManager, Stage, resident_bytes

LIMIT = 1000


class Memory:
    def __init__(self):
        self.used, self.now = 0, 0.0
        self.trims, self.shrunk = 0, []
        self.manager = OverloadManager(
            LIMIT, 0.85, lambda: self.used, self.shrunk.append, self.trim, lambda: self.now
        )

    def trim(self):
        self.trims += 1

    def at(self, used):
        self.used = used
        self.manager.poll()
        return self.manager.stage


@pytest.fixture
def memory():
    return Memory()


def refuses(manager, method):
    try:
        manager.check(method)
    except Overloaded as error:
        return error.retry_after_seconds > 0
    return False


def test_each_stage_begins_at_its_share_of_the_limit(memory):
    assert [memory.at(used) for used in (849, 850, 899, 900, 949, 950, 2000)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]


def test_a_stage_ends_only_when_it_is_clear_of_where_it_began(memory):
    assert memory.at(950) is Stage.SHED
    assert [memory.at(used) for used in (940, 931)] == [Stage.SHED] * 2
    assert memory.at(929) is Stage.SHRINK_BUFFERS
    assert memory.at(100) is Stage.NORMAL


def test_streams_are_refused_first_then_all_but_probes(memory):
    methods = ("Generate", "StreamTag", "ModelStreamInfer", "Classify", "ModelInfer", "ServerLive")

    def refused():
        return [refuses(memory.manager, method) for method in methods]

    assert not any(refused())
    memory.at(860)
    assert refused() == [True, True, True, False, False, False]
    memory.at(990)
    assert refused() == [True, True, True, True, True, False]


def test_buffers_are_small_from_the_second_stage_on(memory):
    for used in (860, 910, 960, 910, 860):
        memory.at(used)
    assert memory.shrunk == [True, False]


def test_memory_is_given_back_now_and_then_while_it_is_short(memory):
    for second in range(12):
        memory.now = float(second)
        memory.at(860)
    assert memory.trims == 3
    memory.at(10)
    memory.now = 100.0
    memory.at(10)
    assert memory.trims == 3


def test_a_process_knows_what_it_takes():
    assert resident_bytes() > 1 << 20
