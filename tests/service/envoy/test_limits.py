"""What one connection may take of Envoy, and when it is closed."""

import contextlib
import socket
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.envoy import bootstrap
from service.envoy.installation import EnvoyMissing, find
from tests.attacks.harness import wait_until
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

try:
    find()
except EnvoyMissing as error:
    pytest.skip(str(error), allow_module_level=True)

METADATA, CALLS = 16_384, 3
STATUS = grpc.StatusCode


@pytest.fixture
def start(start_service):
    def start(**settings):
        usual = {"max_calls_per_connection": CALLS, "max_metadata_bytes": METADATA}
        return start_service(front_end="envoy", **(usual | settings))

    return start


def channel_to(service, **options):
    """With a connection of its own."""
    return grpc.insecure_channel(
        service.target,
        [
            ("grpc.use_local_subchannel_pool", 1),
            *((f"grpc.{name}", value) for name, value in options.items()),
        ],
    )


def list_models(channel, metadata=(), timeout=20):
    stub = unroll_pb2_grpc.UnrollServiceStub(channel)
    return stub.ListModels(pb.ListModelsRequest(), timeout=timeout, metadata=metadata)


def watch(channel):
    """A call that stays open, once it has been answered."""
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    next(call)
    return call


def test_a_call_with_too_much_metadata_is_refused_and_the_next_one_is_not(start):
    """Each time, not by chance; nor is one that has nearly too much."""
    with channel_to(start()) as channel:
        for _ in range(20):
            list_models(channel, [("x", "a" * (METADATA * 17 // 20))])
        for size in (METADATA, 2 * METADATA, 2 * METADATA):
            with pytest.raises(grpc.RpcError) as caught:
                list_models(channel, [("x", "a" * size)])
            assert caught.value.code() is STATUS.RESOURCE_EXHAUSTED, caught.value
        # Beyond what Envoy reads it has no status; the connection lasts.
        with pytest.raises(grpc.RpcError) as caught:
            list_models(channel, [("x", "a" * 6 * METADATA)])
        assert caught.value.code() is not STATUS.DEADLINE_EXCEEDED
        for many in ([("x", "a")] * 200, [(f"x{n}", "a") for n in range(200)]):
            list_models(channel, many)


def test_calls_beyond_those_of_a_connection_wait_for_one_to_end(start):
    service = start()
    with channel_to(service) as channel, channel_to(service) as other:
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
        for call in calls:
            call.cancel()


def test_many_large_requests_on_one_connection_all_arrive(start):
    """Those that wait for their turn hold up neither those whose turn it is nor small ones."""
    service = start(max_calls_per_connection=100, memory_budget_bytes=32 << 20, body_seconds=30.0)
    large = pb.GetModelRequest(name="a" * 900_000)
    with channel_to(service) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        calls = [stub.GetModel.future(large, timeout=120) for _ in range(60)]
        for _ in range(5):
            list_models(channel)
        codes = {call.exception().code() for call in calls}
    assert codes == {STATUS.NOT_FOUND}


def is_open(connection):
    connection.settimeout(0.2)
    try:
        return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_connections_beyond_the_most_are_closed_and_one_that_ends_makes_room(start):
    service = start(max_connections=4, handshake_seconds=60.0)
    address = ("127.0.0.1", service.app.front_end.port)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address)) for _ in range(4)]
        assert all(map(is_open, held))
        with socket.create_connection(address) as further:
            assert not is_open(further)
        held[0].close()

        def has_room():
            with socket.create_connection(address) as further:
                return is_open(further)

        assert wait_until(has_room, 10)


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2", b"GET / HTTP/1.1\r\nhost: x\r\nx: y"])
def test_a_connection_that_does_not_say_what_it_wants_is_closed(start, said):
    service = start(handshake_seconds=0.5)
    with socket.create_connection(("127.0.0.1", service.app.front_end.port)) as connection:
        connection.sendall(said)
        connection.settimeout(15)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(4096):
                answer += data
    assert answer.split(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")


def test_a_connection_without_a_call_is_closed_and_a_client_comes_again(start):
    service = start(idle_connection_seconds=0.5)
    lost, states = threading.Event(), []

    def take(state):
        states.append(state)
        if state is not grpc.ChannelConnectivity.READY and grpc.ChannelConnectivity.READY in states:
            lost.set()

    with channel_to(service) as channel:
        channel.subscribe(take)
        call = watch(channel)
        assert not lost.wait(2.5), "it has a call"
        call.cancel()
        assert lost.wait(15)
        list_models(channel)


def test_a_caller_that_is_gone_is_found_and_its_calls_end(start, monkeypatch):
    monkeypatch.setattr(bootstrap, "_KEEPALIVE_SECONDS", 1.0)
    monkeypatch.setattr(bootstrap, "_KEEPALIVE_TIMEOUT_SECONDS", 1.0)
    service = start()
    with channel_to(service) as present, Silenced(service) as gone:
        words = threading.Event()

        def requests():
            yield pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online"))
            yield pb.StreamTagRequest(text="the")
            words.wait(60)

        talks = [
            unroll_pb2_grpc.UnrollServiceStub(channel).StreamTag(requests(), timeout=60)
            for channel in (present, gone.channel)
        ]
        for talk in talks:
            next(talk)
        assert service.app.inflight.calls == 2
        gone.is_silent = True
        assert wait_until(lambda: service.app.inflight.calls == 1, 15)
        assert talks[0].is_active()
        words.set()


class Silenced:
    """A channel through a relay that falls silent when it is told to."""

    def __init__(self, service):
        self.is_silent = False
        self._inner = socket.create_connection(("127.0.0.1", service.app.front_end.port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def _accept(self):
        self._outer, _ = self._listener.accept()
        threading.Thread(target=self._pump, args=(self._outer, self._inner), daemon=True).start()
        self._pump(self._inner, self._outer)

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):  # one side was closed meanwhile
            while data := source.recv(65536):
                if not self.is_silent:
                    sink.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        for each in (self._listener, self._inner, self._outer):
            each.close()
