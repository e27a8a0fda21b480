"""What a service and the balancer within its Envoy tell each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from service.envoy.balancer import Balancer
from service.workers.places import WorkersBackend


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def test_envoy_says_its_port_and_answers_pings_until_it_hangs():
    async def run():
        backend, ports = WorkersBackend(), []
        ours, theirs = socket.socketpair(socket.AF_UNIX, backend.kind)
        await backend.attach(ours, ports.append)
        balancer = Balancer(theirs)
        balancer.tell_port(4321)
        await until(lambda: ports == [4321])
        for _ in range(2):
            backend.ping()
            assert not backend.has_answered
            await until(lambda: backend.has_answered)
        asyncio.get_running_loop().remove_reader(theirs)  # it hangs
        backend.ping()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await until(lambda: backend.has_answered)
        assert not backend.has_answered
        theirs.close()  # it has ended
        await until(lambda: backend._orders is None)

    asyncio.run(run())
