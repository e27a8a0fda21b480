"""Stages come one after the other as memory fills, and go without fluttering."""

import pytest

from service.engine.errors import Overloaded
from service.memory import resident_bytes
from service.overload import OverloadManager, Stage

LIMIT = 1000 << 20


class Memory:
    def __init__(self):
        self.used, self.now = 100, 0.0
        self.trims, self.shrunk = [], []
        self.manager = OverloadManager(
            LIMIT,
            0.85,
            lambda: self.used << 20,
            self.shrunk.append,
            self.trims.append,
            lambda: self.now,
        )

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


def test_what_a_burst_took_is_given_back_at_most_once_a_second(memory):
    """Calm or not; what is still used after that is no reason to try again."""
    for tenth in range(40):
        memory.now = tenth / 10
        memory.at(100 if tenth < 15 else 200)
    assert memory.trims == [False]
    memory.now = 10.0
    memory.at(120)
    memory.at(160)
    assert memory.trims == [False]
    memory.at(170)
    assert memory.trims == [False, False]


def test_while_memory_is_short_it_is_collected_now_and_then(memory):
    for second in range(12):
        memory.now = float(second)
        memory.at(860)
    assert memory.trims.count(True) == 2


def test_a_process_knows_what_it_takes():
    assert resident_bytes() > 1 << 20
