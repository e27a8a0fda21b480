"""The relay within Envoy: what it makes of the service's frames."""

import asyncio

import pytest

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


def part(event):
    return event["body"], event["more_body"]


class Parts(Envoy):
    """One whose response has started; taken: a future for each part that has more to come."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def send(self, event):
        self.sent.append(event)
        if not event.get("more_body"):
            return ()
        self.taken.append(self.loop.create_future())
        return self.taken[-1]

    async def begin(self):
        serving = self.serve()
        await asyncio.sleep(0)
        self.receives(frame(1, Kind.START, START))
        del self.sent[:]
        return serving

    def receives(self, *frames):
        self.relay.data_received(b"".join(frames))


def test_a_part_waits_for_the_one_before_and_those_that_wait_follow_as_one():
    async def run():
        envoy = Parts()
        serving = await envoy.begin()
        envoy.receives(*(frame(1, Kind.DATA, part) for part in (b"a", b"b", b"c")))
        assert [part(event) for event in envoy.sent] == [(b"a", True)]
        envoy.taken[0].set_result(None)
        await asyncio.sleep(0)
        assert [part(event) for event in envoy.sent] == [(b"a", True), (b"bc", True)]
        envoy.receives(frame(1, Kind.DATA, b"d"), frame(1, Kind.DATA_END, b"e"))
        assert part(envoy.sent[-1]) == (b"de", False)
        envoy.taken[1].set_result(None)
        await asyncio.sleep(0)
        envoy.receives(frame(1, Kind.TRAILERS, b"grpc-status\n0"))
        await asyncio.wait_for(serving, 10)
        assert [event["type"] for event in envoy.sent[2:]] == [
            "http.response.body", "http.response.trailers",
        ]  # fmt: skip

    asyncio.run(run())


def test_parts_that_were_taken_are_credited_with_what_is_around_them():
    async def run():
        envoy = Parts()
        serving = await envoy.begin()
        enough = -(-RESPONSE_WINDOW // 2 // (PART_BYTES + 1))
        for _ in range(enough - 1):
            envoy.receives(frame(1, Kind.DATA, b"x"))
            envoy.taken[-1].set_result(None)
            await asyncio.sleep(0)
        envoy.receives(frame(1, Kind.DATA, b"x"))
        await asyncio.sleep(0)
        assert [kind for kind, _ in envoy.posted] == [Kind.OPEN]
        envoy.taken[-1].set_result(None)
        await asyncio.sleep(0)
        assert envoy.posted[1:] == [(Kind.CREDIT, CREDIT_BYTES.pack(enough * (PART_BYTES + 1)))]
        serving.cancel()

    asyncio.run(run())


def test_parts_that_were_held_back_are_credited_too():
    async def run():
        envoy = Parts()
        serving = await envoy.begin()
        enough = -(-RESPONSE_WINDOW // 2 // (PART_BYTES + 1))
        envoy.receives(*[frame(1, Kind.DATA, b"x")] * (enough + 1))
        for number in range(2):
            envoy.taken[number].set_result(None)
            await asyncio.sleep(0)
        size = (enough + 1) * (PART_BYTES + 1)
        assert envoy.posted[1:] == [(Kind.CREDIT, CREDIT_BYTES.pack(size))]
        serving.cancel()

    asyncio.run(run())


def test_a_part_that_cannot_be_taken_says_that_the_caller_has_left():
    async def run(goes_on):
        envoy = Parts()
        said = []
        envoy.loop.set_exception_handler(lambda _, context: said.append(context))
        serving = await envoy.begin()
        envoy.receives(frame(1, Kind.DATA, b"a"))
        if goes_on == "at once":
            envoy.receives(frame(1, Kind.DATA, b"b"))
        envoy.taken.pop().set_exception(ConnectionError("left"))
        await asyncio.sleep(0)
        if goes_on == "later":
            envoy.receives(frame(1, Kind.DATA, b"b"))
        # Where nothing follows, the relay looks for the caller from time to time.
        await asyncio.wait_for(serving, 10)
        assert envoy.posted[-1] == (Kind.GONE, b"")
        assert [part(event) for event in envoy.sent] == [(b"a", True)]
        assert said == []

    for goes_on in ("at once", "later", "never"):
        asyncio.run(run(goes_on))


def test_what_was_held_back_leaves_before_a_call_that_fails():
    async def run():
        envoy = Parts()
        serving = await envoy.begin()
        envoy.receives(frame(1, Kind.DATA, b"a"), frame(1, Kind.DATA, b"b"), frame(1, Kind.RESET))
        with pytest.raises(ConnectionAbortedError):
            await asyncio.wait_for(serving, 10)
        assert [part(event) for event in envoy.sent] == [(b"a", True), (b"b", True)]

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
