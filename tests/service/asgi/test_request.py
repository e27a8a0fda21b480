"""Bodies of requests: large ones in their turn, each in its time, none beyond its limit."""

import asyncio

import pytest

from service.access.memory_budget import MemoryBudget
from service.asgi.request import Bodies
from service.engine.errors import MessageTooLarge, TimedOut, WrongInput
from service.front_end import FrontEndSettings

MOST = 1 << 20


def bodies(at_once, seconds=10.0):
    """So many large ones at once, a quarter of them of one connection."""
    settings = FrontEndSettings("127.0.0.1:0", MOST, 16_384, 8, 100, 10.0, seconds, 60.0, 60.0)
    return Bodies(settings, MemoryBudget(4 * at_once * MOST))


def framed(message):
    return b"\0" + len(message).to_bytes(4) + message


class Caller:
    """Sends parts of a body when it is told to; ``taken`` counts those that were read."""

    def __init__(self, made, peer="ann", first=b""):
        self._parts = asyncio.Queue()
        self.taken = 0
        self.body = made.of(peer, self._receive)
        if first:
            self.send(first)

    def send(self, part, has_more=True):
        self._parts.put_nowait({"type": "http.request", "body": part, "more_body": has_more})

    async def _receive(self):
        event = await self._parts.get()
        self.taken += 1
        return event


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_messages_come_out_however_they_were_cut():
    async def run():
        caller, message = Caller(bodies(4)), bytes(range(256)) * 400
        sent = framed(b"") + framed(b"one") + framed(message) + framed(b"two")
        for part in (sent[:3], sent[3:7], b"", sent[7:300], sent[300:]):
            caller.send(part)
        caller.send(b"", has_more=False)
        read = [await caller.body.message() for _ in range(5)]
        assert read == [b"", b"one", message, b"two", None]

    asyncio.run(run())


def test_large_messages_take_turns_and_small_ones_do_not_wait():
    async def run():
        made = bodies(4)
        large = framed(bytes(100_000))
        holders = [Caller(made, f"holder {n}", large[:10]) for n in range(4)]
        waiting = Caller(made, "waiting", large[:10])
        small = Caller(made, "small", framed(bytes(60_000))[:10])
        reading = [asyncio.ensure_future(one.body.message()) for one in (*holders, waiting, small)]
        await settle()
        for one in (waiting, small):
            one.send(bytes(100_000 - 5 if one is waiting else 60_000 - 5))
        await settle()
        assert (small.taken, waiting.taken) == (2, 1), "what has no turn is not read"
        assert reading[-1].done()
        holders[0].send(large[10:])
        await settle()
        assert reading[0].done()
        assert reading[4].done()
        for task in reading:
            task.cancel()

    asyncio.run(run())


def test_one_connection_does_not_take_every_turn():
    async def run():
        made, large = bodies(4), framed(bytes(100_000))
        greedy = [Caller(made, "greedy", large[:10]) for _ in range(8)]
        polite = Caller(made, "polite", large[:10])
        reading = [asyncio.ensure_future(one.body.message()) for one in (*greedy, polite)]
        await settle()
        polite.send(large[10:])
        await settle()
        assert reading[-1].done()
        assert not any(task.done() for task in reading[:-1])
        for task in reading:
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_message_that_does_not_come_is_given_up_and_its_turn_is_free(size):
    async def run():
        made = bodies(1, seconds=0.01)
        for _ in range(2):
            with pytest.raises(TimedOut, match=r"did not come within 0\.01 s"):
                await Caller(made, "late", framed(bytes(size))[:10]).body.message()
            with pytest.raises(TimedOut):
                await Caller(made, "late", bytes(size)).body.whole()

    asyncio.run(run())


def test_what_is_too_large_is_refused_once_that_is_known():
    async def run():
        made = bodies(1)
        caller = Caller(made, first=framed(bytes(MOST + 1))[:10])
        with pytest.raises(MessageTooLarge, match="larger than max"):
            await caller.body.message()
        endless = Caller(made)
        for _ in range(40):
            endless.send(bytes(65_536))
        with pytest.raises(MessageTooLarge):
            await endless.body.whole()
        assert endless.taken == MOST // 65_536 + 1

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"\2" + bytes(4), framed(b"cut")[:-1], b"\0"])
def test_what_is_no_message_is_refused(sent):
    async def run():
        caller = Caller(bodies(1))
        caller.send(sent, has_more=False)
        with pytest.raises(WrongInput):
            await caller.body.message()

    asyncio.run(run())
