"""Health as one verdict of all workers: what the parent has each know of the others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from service.config import Config
from service.workers.pool import WorkerPool


class Worker:
    """What the parent sends it, in place of a process."""

    def __init__(self):
        self.sent = []
        self.channel = self

    async def ask(self, what, **arguments):
        if what == "serve_beside":
            self.sent.append(arguments["names"])


@pytest.fixture
def pool():
    """Three workers; the first lacks one model, the last takes no calls."""
    unused = SimpleNamespace()
    made = WorkerPool(Config(), 3, unused, unused, unused, list, unused, unused)
    for slot, healthy in zip(made.slots, (["", "mood"], ["", "letters"], ["tags"]), strict=True):
        slot.process, slot.state = Worker(), {"healthy": healthy}
        slot.is_ready, slot.is_awake = True, slot.number < 2
    return made


def share(pool):
    async def run():
        for slot in pool.slots:
            await pool._share_health(slot, slot.process)

    asyncio.run(run())
    return [slot.process.sent for slot in pool.slots]


def test_each_worker_knows_what_those_that_take_calls_serve(pool):
    assert share(pool) == [[["", "letters"]], [["", "mood"]], [["", "letters", "mood"]]]


def test_what_has_not_changed_is_not_sent_again(pool):
    share(pool)
    pool.slots[1].is_awake = False
    assert share(pool) == [
        [["", "letters"], []],
        [["", "mood"]],
        [["", "letters", "mood"], ["", "mood"]],
    ]


def test_a_stop_is_every_workers_alone(pool):
    share(pool)
    asyncio.run(pool.announce())
    assert [slot.process.sent[-1] for slot in pool.slots] == [[], [], []]
