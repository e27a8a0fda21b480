"""The service's end of the socket to Envoy: what may wait there unread."""

import asyncio
import socket

from service.asgi.events import DIRECT, NOTES
from service.envoy.frames import (
    CREDIT_BYTES,
    PART_BYTES,
    RESPONSE_WINDOW,
    FrameReader,
    Kind,
    frame,
    lines_of,
    parts_of_answer,
)
from service.envoy.link import Link

_LEAST = 16_384


def opening(path=b"/x"):
    fields = (b"POST", path, b"", b"2", b"http", b"127.0.0.1", b"1")
    return lines_of(*fields, headers=[(b"te", b"trailers")])


class Relay:
    """The other end, by hand. answers: (call, kind) of each frame that came; payloads: theirs."""

    def __init__(self, app, most_unread):
        self.answers, self.payloads = [], []
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
        frames = list(self._reader.feed(data))
        self.payloads += [payload for _, _, payload in frames]
        self.answers += [(call, kind) for call, kind, _ in frames]


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


START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")], "trailers": True}


def test_a_response_that_ends_at_once_is_one_frame():
    async def answers(scope, receive, send):
        direct = scope["extensions"][DIRECT]
        assert not direct.answer_now(START, bytes(RESPONSE_WINDOW + 1), []), "it must wait"
        assert direct.answer_now(START, b"body", [(b"grpc-status", b"0")])
        assert not direct.answer_now(START, b"again", [])

    async def run():
        async with Relay(answers, 1000) as relay:
            await relay.send(frame(1, Kind.OPEN, opening()), frame(1, Kind.BODY_END))
            await relay.send()
            assert relay.answers == [(1, Kind.ANSWER)]
            start, body, trailers = parts_of_answer(relay.payloads[0])
            assert start == lines_of(b"200", b"1", headers=START["headers"])
            assert (body, trailers) == (b"body", b"grpc-status\n0")

    asyncio.run(run())


def test_calls_with_equal_heads_share_notes_and_nothing_else():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)

    async def run():
        async with Relay(app, 1000) as relay:
            for call, path in enumerate((b"/x", b"/x", b"/y"), 1):
                await relay.send(frame(call, Kind.OPEN, opening(path)))

    asyncio.run(run())
    notes = [scope["extensions"][NOTES] for scope in scopes]
    assert notes[0] is notes[1] is not notes[2]
    assert scopes[0]["extensions"] is not scopes[1]["extensions"]
    assert scopes[0]["extensions"][DIRECT] is not scopes[1]["extensions"][DIRECT]


def test_small_parts_of_a_response_take_more_of_its_window_than_their_bytes():
    sent = []

    async def app(scope, receive, send):
        await send(START)
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent.append(1)

    async def run():
        async with Relay(app, 1000) as relay:
            await relay.send(frame(1, Kind.OPEN, opening()))
            assert len(sent) == -(-RESPONSE_WINDOW // (PART_BYTES + 1))

    asyncio.run(run())


def test_what_is_taken_through_is_not_received_and_keeps_its_order():
    received, taken = [], []

    async def reads(scope, receive, send):
        def take(part):
            taken.append(part)
            return part.startswith(b"take")

        direct = scope["extensions"][DIRECT]
        direct.read_through(take)
        while (event := await receive())["more_body"]:
            received.append(event["body"])
            await asyncio.sleep(0)
            if event["body"] == b"no more":
                direct.read_through(None)

    async def run():
        async with Relay(reads, 1 << 20) as relay:

            def part(data, kind=Kind.BODY):
                return frame(1, kind, data)

            await relay.send(frame(1, Kind.OPEN, opening()))
            await relay.send(part(b"take 1"))
            await relay.send(part(b"take 2"), part(b"read 3"), part(b"take 4"))
            # The fourth came while the third was still being read: it waits its turn behind it.
            assert taken == [b"take 1", b"take 2", b"read 3"]
            assert received == [b"read 3", b"take 4"]
            await relay.send(part(b"take 5"))
            await relay.send(part(b"no more"))
            await relay.send(part(b"take 6"))
            assert received[2:] == [b"no more", b"take 6"]
            assert taken[3:] == [b"take 5", b"no more"]
            assert relay.link.unread == 0
            await relay.send(part(b"take the end", Kind.BODY_END))

    asyncio.run(run())


def test_what_is_taken_through_is_credited():
    async def reads(scope, receive, send):
        scope["extensions"][DIRECT].read_through(lambda part: True)
        while (await receive())["more_body"]:
            pass

    async def run():
        async with Relay(reads, 1 << 20) as relay:
            await relay.send(frame(1, Kind.OPEN, opening()))
            await relay.send(body(1, 20_000))
            assert relay.answers == []
            await relay.send(body(1, 20_000))
            assert relay.answers == [(1, Kind.CREDIT)]
            assert CREDIT_BYTES.unpack(relay.payloads[0]) == (40_000,)

    asyncio.run(run())
