"""The service's end of the socket to Envoy: what may wait there unread."""

import asyncio
import socket

from service.envoy.frames import FrameReader, Kind, frame, lines_of
from service.envoy.link import Link

_LEAST = 16_384


def opening(path=b"/x"):
    fields = (b"POST", path, b"", b"2", b"http", b"127.0.0.1", b"1")
    return lines_of(*fields, headers=[(b"te", b"trailers")])


class Relay:
    """The other end, by hand. answers: (call, kind) of each frame that came."""

    def __init__(self, app, most_unread):
        self.answers = []
        self._ours, theirs = socket.socketpair()
        self._theirs, self._app, self._most = theirs, app, most_unread
        self._ours.setblocking(False)
        self._reader = FrameReader()

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.transport, self.link = await loop.create_connection(
            lambda: Link(self._app, lambda port: None, self._most), sock=self._theirs
        )
        return self

    async def __aexit__(self, *_):
        self.transport.close()
        self._ours.close()
        await asyncio.sleep(0)

    async def send(self, *frames):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._ours, b"".join(frames))
        await asyncio.sleep(0.02)
        try:
            data = self._ours.recv(1 << 20)
        except BlockingIOError:
            return
        self.answers += [(call, kind) for call, kind, _ in self._reader.feed(data)]


def body(call, size):
    return frame(call, Kind.BODY, bytes(size))


def test_calls_that_send_more_than_there_is_room_for_are_ended_others_are_not():
    left = []

    async def never_reads(scope, receive, send):
        if scope["path"] == "/answers":
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            left.append(scope["path"])
            raise

    async def run():
        async with Relay(never_reads, 100_000) as relay:
            for call, path in ((1, b"/holds"), (2, b"/small"), (3, b"/answers"), (4, b"/late")):
                await relay.send(frame(call, Kind.OPEN, opening(path)))
            await relay.send(body(1, 60_000), body(3, 40_000))
            assert (relay.link.unread, left) == (100_000, [])
            await relay.send(body(2, _LEAST - 1))
            assert left == [], "it holds little"
            await relay.send(body(4, _LEAST), body(3, 1))
            assert left == ["/late", "/answers"]
            ended = [answer for answer in relay.answers if answer[0] == 4]
            assert ended == [(4, Kind.START), (4, Kind.DATA_END)]
            assert [a for a in relay.answers if a[0] == 3] == [(3, Kind.START), (3, Kind.RESET)]
            assert relay.link.unread == 60_000 + _LEAST - 1, "what they held is free"
            await relay.send(frame(1, Kind.GONE), frame(2, Kind.GONE))
            assert relay.link.unread == 0

    asyncio.run(run())


def test_what_is_received_makes_room():
    received = []

    async def reads(scope, receive, send):
        while (event := await receive())["more_body"]:
            received.append(len(event["body"]))

    async def run():
        async with Relay(reads, 20_000) as relay:
            await relay.send(frame(1, Kind.OPEN, opening()))
            for _ in range(5):
                await relay.send(body(1, 20_000))
            assert (sum(received), relay.link.unread) == (100_000, 0)
            assert (1, Kind.CREDIT) in relay.answers

    asyncio.run(run())


def test_a_call_that_is_left_before_it_was_looked_at_holds_nothing():
    """Its frames come in one piece, so that its task is cancelled before it runs."""
    called = []

    async def app(scope, receive, send):
        called.append(scope["path"])

    async def run():
        async with Relay(app, most_unread=100_000) as relay:
            for call in range(1, 11):
                await relay.send(
                    frame(call, Kind.OPEN, opening()), body(call, 60_000), frame(call, Kind.GONE)
                )
                assert relay.link.unread == 0
            assert called == []

    asyncio.run(run())
