"""Which worker a call goes to, and what its caller gets where there is none."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager

import pytest

from service.envoy.balancer import Balancer
from service.envoy.relay import ServiceLost

GRPC = [(b"content-type", b"application/grpc")]
JSON = [(b"content-type", b"application/json")]
INFER = b"/inference.GRPCInferenceService/ModelInfer"


class Worker:
    """A relay to a worker: keeps calls open, or loses them after the response has started so."""

    def __init__(self, lost=None):
        self.calls, self.bodies, self._lost = {}, [], lost

    async def serve(self, scope, receive, send):
        self.calls[len(self.calls)] = None
        self.bodies.append((await receive())["body"])
        if self._lost:
            raise self._lost


class Asked:
    """One call: its body comes at once, late or not at all; what is sent to its caller."""

    def __init__(self, path=b"/unroll.v1.UnrollService/Classify", headers=GRPC, client="a"):
        self.scope = {"raw_path": path, "headers": headers, "client": (client, 1)}
        self.body, self.has_more, self.seconds = b"text", False, 0.0
        self.sent = []

    async def receive(self):
        await asyncio.sleep(self.seconds)
        return {"type": "http.request", "body": self.body, "more_body": self.has_more}

    async def send(self, event):
        self.sent.append(event)


@contextmanager
def balancing(*workers):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        balancer = Balancer(ours)
        balancer._workers = dict(enumerate(workers))
        balancer._awake = dict(balancer._workers)
        yield balancer
        asyncio.get_running_loop().remove_reader(ours)


def served(calls, *workers, before=lambda number, balancer: None):
    """What ``calls`` were sent, and how many each worker has."""

    async def run():
        with balancing(*workers) as balancer:
            for number, call in enumerate(calls):
                before(number, balancer)
                await balancer.serve(call.scope, call.receive, call.send)

    asyncio.run(run())
    return [len(worker.calls) for worker in workers]


def test_a_call_goes_to_the_worker_with_the_fewest_and_equals_take_turns():
    busy, idle = Worker(), Worker()
    busy.calls.update(dict.fromkeys(range(100, 104)))
    assert served([Asked() for _ in range(4)], busy, idle) == [4, 4]
    assert served([Asked() for _ in range(9)], Worker(), Worker(), Worker()) == [3, 3, 3]


def test_a_worker_that_rests_gets_none():
    def rest(number, balancer):
        balancer._set_awake(0, number >= 4)

    assert served([Asked() for _ in range(4)], Worker(), Worker(), before=rest) == [0, 4]
    assert served([Asked() for _ in range(8)], Worker(), Worker(), before=rest) == [4, 4]


def sequence_call(client, **settings):
    call = Asked(INFER, client=client)
    call.body = b"\x22\x0f\n\x0bsequence_id\x12\x00"
    for name, value in settings.items():
        setattr(call, name, value)
    return call


def test_requests_of_sequences_stay_with_their_connection_and_others_do_not():
    calls = [sequence_call("a") for _ in range(4)]
    assert sorted(served(calls, Worker(), Worker())) == [0, 4]
    calls = [sequence_call(client) for client in "abab"]
    assert served(calls, Worker(), Worker()) == [2, 2]
    assert served([Asked(INFER) for _ in range(4)], Worker(), Worker()) == [2, 2]


def test_what_the_balancer_read_the_worker_reads():
    worker = Worker()
    served(
        [sequence_call("a", seconds=0.01), sequence_call("a", body=b"late", seconds=0.2)], worker
    )
    assert worker.bodies == [b"\x22\x0f\n\x0bsequence_id\x12\x00", b"late"]


@pytest.mark.parametrize(
    "settings",
    [
        {"scope": {"raw_path": INFER, "client": ("a", 1),
                   "headers": [*GRPC, (b"grpc-encoding", b"gzip")]}},
        {"scope": {"raw_path": b"/v2/models/m/infer", "client": ("a", 1), "headers": JSON},
         "has_more": True},
        {"scope": {"raw_path": INFER, "client": ("a", 1),
                   "headers": [(b"sec-websocket-key", b"x")]}},
        {"seconds": 0.1},
    ],
)  # fmt: skip
def test_what_cannot_be_seen_into_is_bound_too(settings):
    calls = [sequence_call("a", body=b"\x1f\x8b", **settings) for _ in range(3)]
    assert sorted(served(calls, Worker(), Worker())) == [0, 3]


def test_a_connection_whose_worker_has_ended_gets_another_one():
    workers = Worker(), Worker()

    def drop(number, balancer):
        if number == 1:
            bound = next(iter(balancer._bound.values()))
            workers[bound].calls.clear()  # they have ended
            balancer._drop(bound, balancer._workers[bound])

    assert sorted(served([sequence_call("a") for _ in range(3)], *workers, before=drop)) == [0, 2]


@pytest.mark.parametrize(
    ("workers", "headers", "kinds"),
    [
        ((), GRPC, ["start", "body", "trailers"]),
        ((Worker(ServiceLost(None)),), GRPC, ["start", "body", "trailers"]),
        ((Worker(ServiceLost(True)),), GRPC, ["body", "trailers"]),
        ((), JSON, ["start", "body"]),
        ((Worker(ServiceLost(None)),), JSON, ["start", "body"]),
    ],
)
def test_a_caller_without_a_worker_learns_that_it_may_try_again(workers, headers, kinds):
    call = Asked(headers=headers)
    served([call], *workers)
    assert [event["type"].removeprefix("http.response.") for event in call.sent] == kinds
    if headers is GRPC:
        assert dict(call.sent[-1]["headers"])[b"grpc-status"] == b"14"
    else:
        assert call.sent[0]["status"] == 503
        assert (b"retry-after", b"1") in call.sent[0]["headers"]


def test_a_response_that_can_say_nothing_any_more_is_reset():
    with pytest.raises(ConnectionAbortedError):
        served([Asked(headers=JSON)], Worker(ServiceLost(False)))
