"""The relay within Envoy: what it makes of the service's frames."""

import asyncio

from service.envoy.frames import (
    CREDIT_BYTES,
    PART_BYTES,
    RESPONSE_WINDOW,
    Kind,
    answer,
    frame,
    lines_of,
)
from service.envoy.relay import Relay

SCOPE = {
    "method": "POST",
    "raw_path": b"/",
    "query_string": b"",
    "http_version": "2",
    "scheme": "http",
    "headers": [],
}
START = lines_of(b"200", b"1", headers=[(b"a", b"b")])


class Envoy:
    """receive() and send() of one call, as pyvoy has them. posted: (kind, payload) of frames."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.relay, self.posted, self.sent, self.received = Relay(lambda: None), [], [], []
        self.relay.post = lambda data: self.posted.append((data[8], data[9:]))

    def receive(self):
        self.received.append(self.loop.create_future())
        return self.received[-1]

    def send(self, event):
        """What has more to come is taken later."""
        self.sent.append(event)
        return self.loop.create_future() if event.get("more_body") else ()

    def serve(self):
        return asyncio.ensure_future(self.relay.serve(SCOPE, self.receive, self.send))


def test_a_whole_response_becomes_the_events_of_one():
    async def run():
        envoy = Envoy()
        serving = envoy.serve()
        await asyncio.sleep(0)
        envoy.relay.data_received(answer(1, START, b"body", b"grpc-status\n0"))
        await asyncio.wait_for(serving, 10)
        start, body, trailers = envoy.sent
        assert (start["status"], start["headers"], start["trailers"]) == (200, [(b"a", b"b")], True)
        assert (body["body"], body["more_body"]) == (b"body", False)
        assert trailers["headers"] == [(b"grpc-status", b"0")]

    asyncio.run(run())


def test_parts_that_were_taken_are_credited_with_what_is_around_them():
    async def run():
        envoy, taken = Envoy(), []
        envoy.send = lambda event: taken.append(envoy.loop.create_future()) or taken[-1]
        serving = envoy.serve()
        await asyncio.sleep(0)
        enough = -(-RESPONSE_WINDOW // 2 // (PART_BYTES + 1))
        envoy.relay.data_received(b"".join(frame(1, Kind.DATA, b"x") for _ in range(enough)))
        for part in taken[:-1]:
            part.set_result(None)
        await asyncio.sleep(0)
        assert [kind for kind, _ in envoy.posted] == [Kind.OPEN]
        taken[-1].set_result(None)
        await asyncio.sleep(0)
        assert envoy.posted[1:] == [(Kind.CREDIT, CREDIT_BYTES.pack(enough * (PART_BYTES + 1)))]
        serving.cancel()

    asyncio.run(run())


def test_nobody_looks_for_the_callers_of_calls_that_are_soon_over():
    async def run():
        envoy = Envoy()
        serving = envoy.serve()
        await asyncio.sleep(0)
        envoy.received[0].set_result({"type": "http.request", "body": b"", "more_body": False})
        await asyncio.sleep(0.04)
        assert len(envoy.received) == 1
        for _ in range(100):
            if len(envoy.received) > 1:
                break
            await asyncio.sleep(0.01)
        envoy.received[1].set_result({"type": "http.disconnect"})
        await asyncio.wait_for(serving, 10)
        assert envoy.posted[-1] == (Kind.GONE, b"")

    asyncio.run(run())
