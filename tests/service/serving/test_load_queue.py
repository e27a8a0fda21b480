"""Whose turn it is, and who may wait. No clock but the one that is given."""

import asyncio

import pytest

from service.engine.errors import QueueFull, ServiceStopping
from service.serving.load_queue import LoadQueue


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(scenario):
    asyncio.run(scenario())


async def settle():
    """Until nothing that is ready is left to run."""
    for _ in range(5):
        await asyncio.sleep(0)


class Callers:
    """Each enters with a name; ``begun`` holds those whose turn has come, in order."""

    def __init__(self, queue):
        self.queue = queue
        self.begun = []

    def enter(self, name, is_load=True):
        return asyncio.create_task(self._enter(name, is_load))

    async def _enter(self, name, is_load):
        await self.queue.enter(name, is_load)
        self.begun.append(name)


def test_loads_of_one_model_take_turns_and_others_pass_by():
    async def scenario():
        callers = Callers(LoadQueue(2, 10))
        for name in ("a", "a", "b", "c"):
            callers.enter(name)
        await settle()
        assert callers.begun == ["a", "b"]
        callers.queue.leave("b")
        await settle()
        assert callers.begun == ["a", "b", "c"], "a is still being loaded"
        callers.queue.leave("a")
        await settle()
        assert callers.begun == ["a", "b", "c", "a"]
        assert callers.queue.waiting == 0

    run(scenario)


def test_an_unload_waits_for_its_model_alone():
    async def scenario():
        callers = Callers(LoadQueue(1, 10))
        for name, is_load in (("a", True), ("b", False), ("a", False), ("c", True)):
            callers.enter(name, is_load)
        await settle()
        assert callers.begun == ["a", "b"]
        callers.queue.leave("a")
        await settle()
        assert callers.begun == ["a", "b", "a", "c"]

    run(scenario)


def test_beyond_the_limit_a_load_is_refused_with_the_delay():
    async def scenario():
        clock = Clock()
        callers = Callers(LoadQueue(1, 2, clock))
        await callers.enter("a")
        clock.now = 6.0
        callers.queue.leave("a")
        await callers.enter("a")
        waiting = [callers.enter("a"), callers.enter("b")]
        await settle()
        with pytest.raises(QueueFull, match="2 loads and unloads wait, as many as may") as caught:
            await callers.enter("c")
        assert caught.value.retry_after_seconds == 3 * 6.0
        callers.queue.leave("a")
        await settle()
        assert callers.enter("c")
        await settle()
        assert callers.queue.waiting == 2, "there was room again"
        assert not waiting[1].done()
        callers.queue.close(ServiceStopping)
        await settle()

    run(scenario)


def test_a_caller_that_leaves_gives_its_place_up():
    async def scenario():
        callers = Callers(LoadQueue(1, 1))
        await callers.enter("a")
        gone = callers.enter("a")
        await settle()
        gone.cancel()
        await settle()
        callers.enter("b")
        await settle()
        assert callers.queue.waiting == 1
        callers.queue.leave("a")
        await settle()
        assert callers.begun == ["a", "b"]

    run(scenario)


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_caller_that_leaves_as_its_turn_comes_holds_up_nobody(leaves_first):
    async def scenario():
        callers = Callers(LoadQueue(1, 5))
        await callers.enter("a")
        gone, after = callers.enter("a"), callers.enter("a")
        await settle()
        order = [gone.cancel, lambda: callers.queue.leave("a")]
        for act in order if leaves_first else reversed(order):
            act()
        await settle()
        assert callers.begun == ["a", "a"]
        assert after.done()
        assert gone.cancelled()

    run(scenario)


def test_a_close_drops_who_waits_and_lets_what_has_begun_go_on():
    async def scenario():
        callers = Callers(LoadQueue(1, 2000))
        await callers.enter("a")
        waiting = [callers.enter(name) for name in "ab" * 750]
        await settle()
        waiting[0].cancel()
        callers.queue.close(ServiceStopping)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(ends[0], asyncio.CancelledError)
        assert {type(end) for end in ends[1:]} == {ServiceStopping}
        # One that were shared would grow by a traceback for each.
        assert len({id(end) for end in ends[1:]}) == len(ends) - 1
        assert callers.queue.waiting == 0
        callers.queue.leave("a")

    run(scenario)
