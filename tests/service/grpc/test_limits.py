"""What one connection may take of the server, and how either side learns that the other is gone."""

import asyncio
import contextlib
import socket
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access.admission import AdmissionControl
from service.access.inflight import InflightTracker
from service.access.memory_budget import MemoryBudget
from service.front_end import FrontEndSettings
from service.grpc import server as serving
from service.grpc.server import GrpcServer
from service.services import Services
from service.serving.named_states import NamedStates
from service.serving.presets import Presets
from service.serving.registry import ModelRegistry
from service.serving.sequences import Sequences
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

STATUS = grpc.StatusCode
METADATA, CALLS, MESSAGE = 16_384, 3, 2048


class Serving:
    """A server without models, on a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self._run(self._start())
        self.port = self.server.port

    async def _start(self):
        settings = FrontEndSettings(
            "127.0.0.1:0",
            max_message_bytes=MESSAGE,
            max_metadata_bytes=METADATA,
            max_connections=16,
            max_calls_per_connection=CALLS,
            handshake_seconds=10.0,
            body_seconds=10.0,
            idle_connection_seconds=60.0,
            stall_seconds=60.0,
        )
        budget = MemoryBudget(1 << 20)
        admission = AdmissionControl(InflightTracker(CALLS), lambda *_: None, str, budget)
        services = Services(
            ModelRegistry(),
            None,
            admission,
            Sequences(8, 60.0, budget),
            None,
            lambda: True,
            60.0,
            NamedStates(None, 1, 60.0),
            Presets(),
        )
        server = GrpcServer(services, settings)
        await server.start()
        return server

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def stop(self):
        self._run(self.server.stop(False))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def channel(self, **options):
        """With a connection of its own; options: of keepalive, by their last name."""
        return grpc.insecure_channel(
            f"127.0.0.1:{self.port}",
            [
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.http2.max_pings_without_data", 0),
                *((f"grpc.{name}", value) for name, value in options.items()),
            ],
        )


@pytest.fixture
def start(monkeypatch):
    """Starts a server; keywords replace seconds that the module has."""
    running = []

    def start(**seconds):
        for name, value in seconds.items():
            monkeypatch.setattr(serving, f"_{name}_SECONDS", value)
        running.append(Serving())
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def channel(start):
    with start().channel() as channel:
        yield channel


def list_models(channel, metadata=(), timeout=20):
    stub = unroll_pb2_grpc.UnrollServiceStub(channel)
    return stub.ListModels(pb.ListModelsRequest(), timeout=timeout, metadata=metadata)


def watch(channel):
    """A call that stays open, once it has been answered."""
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    next(call)
    return call


def test_a_call_with_too_much_metadata_is_refused_and_the_next_one_is_not(channel):
    """Each time, not by chance; nor is one that has nearly too much."""
    for _ in range(20):
        list_models(channel, [("x", "a" * (METADATA * 17 // 20))])
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as caught:
            list_models(channel, [("x", "a" * METADATA)])
        assert caught.value.code() is STATUS.RESOURCE_EXHAUSTED, caught.value
    list_models(channel)


def test_a_message_that_is_too_large_is_refused(channel):
    stub = unroll_pb2_grpc.UnrollServiceStub(channel)
    with pytest.raises(grpc.RpcError, match="larger than max") as caught:
        stub.GetModel(pb.GetModelRequest(name="a" * MESSAGE), timeout=20)
    assert caught.value.code() is STATUS.RESOURCE_EXHAUSTED


def test_calls_beyond_those_of_a_connection_wait_for_one_to_end(start):
    server = start()
    with server.channel() as channel, server.channel() as other:
        calls = [watch(channel) for _ in range(CALLS)]
        with pytest.raises(grpc.RpcError) as caught:
            list_models(channel, timeout=0.3)
        assert caught.value.code() is STATUS.DEADLINE_EXCEEDED
        list_models(other)
        waiting = unroll_pb2_grpc.UnrollServiceStub(channel).ListModels.future(
            pb.ListModelsRequest(), timeout=20
        )
        calls[0].cancel()
        waiting.result()


# -- pings ------------------------------------------------------------------------------------


def pinging(server):
    """A channel that pings as often as gRPC lets a client, which is once a second."""
    return server.channel(keepalive_time_ms=1, keepalive_permit_without_calls=1)


class States:
    """Of a channel: whether it has lost its connection since it had one."""

    def __init__(self, channel):
        self._ready, self.has_lost = threading.Event(), False
        channel.subscribe(self._take, try_to_connect=True)

    def _take(self, state):
        if state is grpc.ChannelConnectivity.READY:
            self._ready.set()
        elif self._ready.is_set():
            self.has_lost = True

    def wait_until_ready(self):
        assert self._ready.wait(10)


def test_callers_may_ping_with_calls_and_without_but_not_too_often(start):
    """Every half a second is allowed to some here, and every ten to another."""
    often, seldom = start(LEAST_PING=0.5), start(LEAST_PING=10.0)
    with pinging(often) as silent, pinging(often) as calling, pinging(seldom) as cut_off:
        connection = States(silent)
        connection.wait_until_ready()
        calls = [watch(calling), watch(cut_off)]
        with pytest.raises(grpc.RpcError, match=r"(?i)too many pings|too_many_pings") as caught:
            next(calls[1])
        assert caught.value.code() is STATUS.UNAVAILABLE
        assert (connection.has_lost, calls[0].is_active()) == (False, True)
        calls[0].cancel()


class Relay:
    """Between a channel and a server, until it falls silent; then nothing gets through.

    server_left: set once the server has closed its side.
    """

    def __init__(self, port):
        self.is_silent, self.server_left = False, threading.Event()
        self._inner = socket.create_connection(("127.0.0.1", port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        self._outer, _ = self._listener.accept()
        threading.Thread(target=self._pump, args=(self._outer, self._inner), daemon=True).start()
        self._pump(self._inner, self._outer)
        self.server_left.set()

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):  # one side was closed meanwhile
            while data := source.recv(65536):
                if not self.is_silent:
                    sink.sendall(data)

    def close(self):
        for each in (self._listener, self._inner, self._outer):
            each.close()


def test_a_connection_whose_caller_is_gone_is_closed_and_another_is_not(start):
    """It is asked whether anybody is there, and nobody answers."""
    server = start(KEEPALIVE=0.2, KEEPALIVE_TIMEOUT=0.3)
    relay = Relay(server.port)
    with server.channel() as present, relayed(relay) as gone:
        calls = [watch(present), watch(gone)]
        assert not relay.server_left.wait(1.0), "both sides answer"
        relay.is_silent = True
        assert relay.server_left.wait(10)
        assert calls[0].is_active()
        for call in calls:
            call.cancel()
    relay.close()


def relayed(relay):
    return grpc.insecure_channel(f"127.0.0.1:{relay.port}")
