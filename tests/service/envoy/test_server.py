"""Envoy as a child of the service: where it listens, what follows its end and the service's own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from service.config import ConfigInvalid
from service.envoy import installation
from service.envoy.installation import EnvoyMissing, find
from service.front_end import AddressInUse
from service.grpc.server import GrpcServer
from tests.attacks.harness import children_of, wait_until
from tests.service.processes import Process, port_of, ports_of, serve
from unroll import NO_RETRIES, Client, RequestFailed
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

try:
    find()
except EnvoyMissing as error:
    pytest.skip(str(error), allow_module_level=True)


# Channels with equal options would share one connection.
LOCAL = ("grpc.use_local_subchannel_pool", 1)


def envoys_of(pid):
    """Children that run Envoy."""
    return [c for c in children_of(pid) if "envoy" in Path(f"/proc/{c}/cmdline").read_text()]


def is_there(pid):
    """Also one that has ended and was not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def probe(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def is_served(port):
    try:
        with Client(f"127.0.0.1:{port}", timeout=5, retries=NO_RETRIES) as client:
            return bool(client.list_models().models)
    except RequestFailed:
        return False


@pytest.fixture
def serving(run, tiny_models):
    """A process, its ports and its Envoy."""
    process = serve(run, tiny_models, "--front-end", "envoy")
    ports = [int(port) for port in ports_of(process)]
    (envoy,) = envoys_of(process.process.pid)
    return process, *ports, envoy


# -- where it listens -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("127.0.0.1:0", "127.0.0.1"),
        ("localhost:0", "localhost"),
        ("0.0.0.0:0", "127.0.0.1"),
        ("[::1]:0", "[::1]"),
        ("[::]:0", "127.0.0.1"),
    ],
)
def test_it_listens_where_it_is_told(start_service, address, reached):
    if "::" in address and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    service = start_service(address=address, allow_insecure=True, front_end="envoy")
    port = service.app.front_end.port
    with Client(f"{reached}:{port}", timeout=20, retries=NO_RETRIES) as client:
        assert client.list_models().models


@pytest.mark.parametrize("address", ["no-such-host.invalid:0", "192.0.2.1:0"])
def test_an_address_that_is_not_this_machines_stops_the_start(start_service, address):
    with pytest.raises(AddressInUse, match="cannot listen on"):
        start_service(address=address, allow_insecure=True, front_end="envoy")


def test_a_port_that_is_taken_stops_the_start(start_service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=f"cannot listen on {address}"):
            start_service(address=address, front_end="envoy")


# -- where it is missing ----------------------------------------------------------------------


def missing_package(monkeypatch):
    real = installation.importlib.util.find_spec
    monkeypatch.setattr(
        installation.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pyvoy" else real(name, *rest),
    )


def missing_library(monkeypatch):
    real = installation.sysconfig.get_config_var
    changed = {"INSTSONAME": "libpython3.11.a"}
    monkeypatch.setattr(
        installation.sysconfig, "get_config_var", lambda name: changed.get(name) or real(name)
    )


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (missing_package, "the package pyvoy is not installed"),
        (missing_library, "the shared library of this Python is missing .*libpython3"),
    ],
)
def test_without_it_grpcio_serves_unless_envoy_was_asked_for(
    start_service, monkeypatch, caplog, remove, message
):
    remove(monkeypatch)
    with pytest.raises(EnvoyMissing, match=message):
        find()
    with pytest.raises(ConfigInvalid, match=f"front_end is 'envoy': {message}"):
        start_service(front_end="envoy")
    monkeypatch.setattr("tests.front_ends.CHOSEN", "auto")
    service = start_service(front_end="auto")
    assert isinstance(service.app.front_end, GrpcServer)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("the front end is grpcio, for gRPC alone: the " in line for line in warnings)
    assert is_served(service.app.front_end.port)


# -- its end ----------------------------------------------------------------------------------


def test_it_is_started_again_and_its_calls_are_ended(start_service, caplog):
    service = start_service(front_end="envoy")
    port = service.app.front_end.port
    may_end = threading.Event()

    def words():
        yield ["the"]
        may_end.wait(60)

    with Client(f"127.0.0.1:{port}", timeout=60, retries=NO_RETRIES) as client:
        stream = client.stream_tag("tags-online", words())
        next(stream)
        assert service.app.inflight.calls == 1
        os.kill(service.app.front_end._process.pid, signal.SIGKILL)
        with pytest.raises(RequestFailed, match="UNAVAILABLE"):
            list(stream)
        may_end.set()
    assert wait_until(lambda: service.app.inflight.calls == 0, 10)
    assert wait_until(lambda: is_served(port), 20), "on the port that it had"
    assert service.metric("unroll_front_end_restarts_total") == 1
    assert service.metric("unroll_front_end_resident_memory_bytes") > 10e6
    assert "Envoy ended by itself, by SIGKILL" in caplog.text


def test_one_that_hangs_is_killed_and_started_again(start_service, monkeypatch, caplog):
    monkeypatch.setattr("service.envoy.process._PING_SECONDS", 0.2)
    service = start_service(front_end="envoy")
    port = service.app.front_end.port
    assert is_served(port)
    os.kill(service.app.front_end.pid, signal.SIGSTOP)
    assert wait_until(lambda: service.metric("unroll_front_end_restarts_total") == 1, 20)
    assert wait_until(lambda: is_served(port), 20)
    assert "Envoy has hung" in caplog.text


def test_while_it_cannot_be_started_the_service_is_not_ready_and_then_ends(serving):
    process, port, http, envoy = serving
    assert probe(http)[0] == 200
    os.kill(envoy, signal.SIGKILL)
    # Whoever takes its port keeps it from starting.
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert wait_until(lambda: _binds(taker, port), 5)
        taker.listen()
        assert wait_until(lambda: probe(http)[0] == 503, 5)
        assert "its front end ended" in probe(http)[1]
        assert process.process.wait(60) == 1
    process.output = process.process.stdout.read()
    assert "6 times in a row" in process.output


def _binds(taker, port):
    try:
        taker.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_it_ends_with_a_service_that_is_killed(serving):
    process, port, _, envoy = serving
    process.process.kill()
    process.process.wait()
    assert wait_until(lambda: not is_there(envoy), 10)
    assert not is_served(port)


def test_nothing_of_it_is_left_when_the_service_has_stopped(serving):
    process, _, _, envoy = serving
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 0
    assert not is_there(envoy)
    assert "ENVOY_SIGTERM" not in process.output


def test_callers_see_nothing_but_answers_and_unavailable_around_a_stop(serving):
    """Also those whose connection was idle, and those that call at the very moment."""
    process, port, _, _ = serving
    codes, answered, has_ended = Counter(), threading.Event(), threading.Event()

    def call():
        with grpc.insecure_channel(f"127.0.0.1:{port}", [LOCAL]) as channel:
            stub = unroll_pb2_grpc.UnrollServiceStub(channel)
            request = pb.ClassifyRequest(model="mood", texts=["good"])
            while not has_ended.is_set():
                try:
                    stub.Classify(request, timeout=20)
                    codes[grpc.StatusCode.OK] += 1
                    answered.set()
                except grpc.RpcError as error:
                    codes[error.code()] += 1

    idle = [grpc.insecure_channel(f"127.0.0.1:{port}", [LOCAL]) for _ in range(4)]
    for channel in idle:
        grpc.channel_ready_future(channel).result(20)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        assert answered.wait(20)
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 0
        has_ended.set()
        for each in calls:
            each.result()
    for channel in idle:
        with pytest.raises(grpc.RpcError) as caught:
            unroll_pb2_grpc.UnrollServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=9)
        codes[caught.value.code()] += 1
        channel.close()
    assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}, codes


def test_a_second_signal_ends_both(run, tiny_models):
    process = run(
        "serve", "--models", tiny_models, "--address", "127.0.0.1:0", "--http-address",
        "127.0.0.1:0", "--propagation-seconds", "600", "--front-end", "envoy",
    )  # fmt: skip
    port_of(process)
    (envoy,) = envoys_of(process.process.pid)
    process.process.send_signal(signal.SIGTERM)
    process.read_until("not ready any more")
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 128 + signal.SIGTERM
    assert wait_until(lambda: not is_there(envoy), 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_streams_finish(tiny_models, number):
    """As Ctrl-C in a terminal sends it, to Envoy too."""
    command = [
        sys.executable, "-m", "service", "serve", "--models", tiny_models, "--address",
        "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--propagation-seconds", "0",
        "--front-end", "envoy",
    ]  # fmt: skip
    process = Process.__new__(Process)
    process.output = ""
    process.process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with Client(f"127.0.0.1:{port_of(process)}", timeout=20, retries=NO_RETRIES) as client:
            streams = [client.generate("letters", prompt="a", max_tokens=400) for _ in range(8)]
            started = [next(stream) for stream in streams]
            os.killpg(process.process.pid, number)
            for first, stream in zip(started, streams, strict=True):
                assert [first, *stream][-1].answer.output_tokens == 400
        assert process.end() == 0
    finally:
        process.process.kill()
        process.process.wait()


def test_a_service_whose_envoy_was_ended_from_outside_goes_on(serving):
    """SIGTERM from outside waits, since it may be the group's; SIGKILL does not."""
    process, port, http, envoy = serving
    os.kill(envoy, signal.SIGTERM)
    time.sleep(0.5)
    assert is_served(port)
    os.kill(envoy, signal.SIGKILL)
    assert wait_until(lambda: is_served(port), 20)
    assert wait_until(lambda: probe(http)[0] == 200, 10)
    (other,) = envoys_of(process.process.pid)
    assert other != envoy
