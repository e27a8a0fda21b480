"""Responses are written in order, one at a time, and none is taken back."""

import asyncio

import pytest

from service.oip.writer import ResponseQueue


class Caller:
    """Reads one response each time it is let to."""

    def __init__(self):
        self.read = []
        self.begun = 0
        self.turns = asyncio.Semaphore(0)

    async def write(self, response):
        self.begun += 1
        await self.turns.acquire()
        self.read.append(response)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_responses_are_written_one_at_a_time_and_in_order():
    async def run():
        caller = Caller()
        outbox = ResponseQueue(caller.write, 8)
        running = asyncio.ensure_future(outbox.run())
        for number in range(3):
            await outbox.put(number)
        await settle()
        assert (caller.begun, caller.read) == (1, [])
        for _ in range(3):
            caller.turns.release()
        await outbox.written()
        assert caller.read == [0, 1, 2]
        outbox.close()
        await running

    asyncio.run(run())


def test_written_waits_for_what_was_put_in_before_and_no_longer():
    async def run():
        caller = Caller()
        outbox = ResponseQueue(caller.write, 8)
        running = asyncio.ensure_future(outbox.run())
        await outbox.written()
        await outbox.put("mine")
        waiting = asyncio.ensure_future(outbox.written())
        await settle()
        await outbox.put("another's")
        assert not waiting.done()
        caller.turns.release()
        await waiting
        assert caller.read == ["mine"]
        caller.turns.release()
        await outbox.written()
        outbox.close()
        await running

    asyncio.run(run())


def test_whoever_waits_may_be_cancelled_while_its_response_is_written():
    async def run():
        caller = Caller()
        outbox = ResponseQueue(caller.write, 1)
        running = asyncio.ensure_future(outbox.run())

        async def answer(response):
            await outbox.put(response)
            await outbox.written()

        handler = [asyncio.ensure_future(answer(number)) for number in range(3)]
        await settle()
        for task in handler:
            task.cancel()
        await asyncio.gather(*handler, return_exceptions=True)
        caller.turns.release()
        caller.turns.release()
        await outbox.put("after")
        caller.turns.release()
        await outbox.written()
        assert caller.read[0] == 0
        assert caller.read[-1] == "after"
        outbox.close()
        await running

    asyncio.run(run())


def test_a_close_finishes_the_write_under_way_and_drops_the_rest():
    async def run():
        caller = Caller()
        outbox = ResponseQueue(caller.write, 8)
        running = asyncio.ensure_future(outbox.run())
        await outbox.put("begun")
        await outbox.put("waits")
        await settle()
        outbox.close()
        await settle()
        assert not running.done()
        caller.turns.release()
        await running
        assert caller.read == ["begun"]

    asyncio.run(run())


def test_a_write_that_fails_is_raised():
    async def run():
        async def fail(response):
            raise OSError(response)

        outbox = ResponseQueue(fail, 8)
        await outbox.put("lost")
        with pytest.raises(OSError, match="lost"):
            await outbox.run()

    asyncio.run(run())
