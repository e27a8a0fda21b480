"""The status of a call that is cut off."""

import asyncio
from types import SimpleNamespace

import pytest

from service.access.codes import Code
from service.access.memory_budget import MemoryBudget
from service.asgi.calls import CallServer
from service.front_end import FrontEndSettings

SETTINGS = FrontEndSettings("127.0.0.1:0", 1 << 20, 16_384, 8, 100, 10.0, 10.0, 60.0, 60.0)


class Call:
    """Its clock stands still: to it, a timer that has fired was too early."""

    metadata = ()

    def __init__(self, seconds):
        self._seconds, self.statuses = seconds, []

    def seconds_left(self):
        return self._seconds

    async def end(self, status, message=None):
        self.statuses.append(status)


class EndlessPipeline:
    admission = SimpleNamespace(budget=MemoryBudget(1 << 20))

    def identify(self, method, metadata):
        pass

    async def serve(self, method, call):
        await asyncio.Event().wait()


METHOD = SimpleNamespace(reads_several=True)


def test_a_deadline_that_passed_is_said_whatever_the_clock_says():
    call = Call(0.02)
    server = CallServer(EndlessPipeline(), SETTINGS)
    asyncio.run(server.serve(METHOD, call, 0))
    assert [status.code for status in call.statuses] == [Code.DEADLINE_EXCEEDED]


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_a_server_that_stops_says_so(seconds):
    async def run():
        call = Call(seconds)
        serving = asyncio.ensure_future(
            CallServer(EndlessPipeline(), SETTINGS).serve(METHOD, call, 0)
        )
        await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert [status.code for status in call.statuses] == [Code.UNAVAILABLE]

    asyncio.run(run())
