"""Bodies on their way are few, each connection has its turn, and none is waited for without end."""

import asyncio

import grpc
import pytest

from service.engine.errors import TimedOut, WrongInput
from service.grpc import bodies as module
from service.grpc.bodies import Bodies


class Call:
    """A call whose body comes when it is sent."""

    def __init__(self, peer="ann"):
        self._peer = peer
        self.body = asyncio.get_running_loop().create_future()
        self.is_read = False

    def peer(self):
        return self._peer

    async def read(self):
        self.is_read = True
        return await self.body


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_grpc_reads_so_many_and_a_call_that_ends_makes_room():
    async def run():
        bodies, leave = Bodies(2, 10.0), asyncio.Event()

        async def call(arrives):
            may = bodies.expect()
            if may and arrives:
                bodies.arrived()
                bodies.arrived()
            await leave.wait()
            return may

        calls = [asyncio.ensure_future(call(arrives)) for arrives in (True, False, False, False)]
        await settle()
        assert bodies.reading == 2
        leave.set()
        assert await asyncio.gather(*calls) == [True, True, True, False]
        await settle()
        assert bodies.reading == 0

    asyncio.run(run())


def test_a_body_that_does_not_come_is_given_up():
    async def run():
        with pytest.raises(TimedOut, match=r"did not come within 0\.01 s"):
            await Bodies(1, 0.01).read(Call())

    asyncio.run(run())


def test_a_call_without_a_request_is_refused():
    async def run():
        call = Call()
        call.body.set_result(grpc.aio.EOF)
        with pytest.raises(WrongInput, match="no request"):
            await Bodies(1, 10.0).read(call)

    asyncio.run(run())


def test_one_connection_does_not_take_every_turn(monkeypatch):
    monkeypatch.setattr(module, "_MOST_TIMED_OF_PEER", 2)

    async def run():
        bodies = Bodies(1, 10.0)
        greedy, polite = [Call("greedy") for _ in range(5)], Call("polite")
        reading = [asyncio.ensure_future(bodies.read(call)) for call in (*greedy, polite)]
        await settle()
        assert [call.is_read for call in greedy] == [True, True, False, False, False]
        polite.body.set_result(b"x")
        await settle()
        assert reading[-1].result() == b"x"
        greedy[0].body.set_result(b"y")
        await settle()
        assert [call.is_read for call in greedy] == [True, True, True, False, False]
        for task in reading:
            task.cancel()

    asyncio.run(run())
