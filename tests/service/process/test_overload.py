"""Stages come one after the other as memory fills, and go without fluttering."""

import subprocess
import sys

import pytest

from service.engine.errors import Overloaded
from service.process.memory import held_bytes, resident_bytes
from service.process.overload import OverloadManager, Stage

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
            lambda: self.trims.append(self.now),
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
    lasting = ("Generate", "StreamTag", "StreamStep", "ModelStreamInfer")
    methods = (*lasting, "Classify", "ModelInfer", "ServerLive")

    def refused():
        return [refuses(memory.manager, method) for method in methods]

    assert not any(refused())
    memory.at(860)
    assert refused() == [True] * len(lasting) + [False] * 3
    memory.at(990)
    assert refused() == [True] * (len(lasting) + 2) + [False]


def test_buffers_are_small_from_the_second_stage_on(memory):
    for used in (860, 910, 960, 910, 860):
        memory.at(used)
    assert memory.shrunk == [True, False]


def test_what_a_burst_took_is_given_back_again_and_again_while_that_helps(memory):
    for tenth in range(60):
        memory.now = tenth / 10
        memory.at(300 - 10 * (tenth // 10) if tenth >= 10 else 120)
    assert memory.trims == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_what_is_in_use_is_asked_for_ever_more_rarely(memory):
    for second in range(200):
        memory.now = float(second)
        memory.at(200)
    assert memory.trims == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0]


def test_close_to_the_least_ever_used_nothing_is_given_back(memory):
    for second in range(20):
        memory.now = float(second)
        memory.at(140)
    assert memory.trims == []


def test_a_process_knows_what_it_takes():
    assert 1 << 20 < held_bytes() < resident_bytes()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert 0 < resident_bytes(child.pid) < resident_bytes()
        child.kill()
    assert resident_bytes(child.pid) == held_bytes(child.pid) == 0
