"""The HTTP port under callers that mean it no good: probes get in, and all comes back."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily

from service.observability import http, pages
from service.observability.http import HttpAddressInUse, HttpServer
from service.observability.pages import Pages

WELL = "alive\n"
IS_ALIVE = b"GET /livez HTTP/1.1\r\n\r\n"


class Probes:
    """What is said against the service, each once but the last one."""

    def __init__(self):
        self.dead, self.not_ready = [""], [""]

    def why_dead(self):
        return self.dead.pop(0) if len(self.dead) > 1 else self.dead[0]

    def why_not_ready(self):
        return self.not_ready[0]

    def pages(self, registry):
        return Pages(registry, self.why_dead, self.why_not_ready)


class Caller:
    """A connection that asks, or does not."""

    def __init__(self, port):
        self.socket = socket.socket()
        self.socket.settimeout(20)
        self._port = port

    def connect(self):
        self.socket.connect(("127.0.0.1", self._port))
        return self

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """Everything until the server ends the connection."""
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(65_536):
                answer += part
        return answer.decode()


@pytest.fixture
def probes():
    return Probes()


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def server(probes, registry):
    made = HttpServer("127.0.0.1", 0, probes.pages(registry))
    made.start()
    yield made
    made.stop()
    assert not made._thread.is_alive()


class ServerProcess:
    """A server whose process holds no descriptor of anything else."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.service.observability.http_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())

    def do(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture
def apart():
    made = ServerProcess()
    yield made
    made.process.stdin.close()
    made.process.stdout.close()
    made.process.kill()
    made.process.wait()


@pytest.fixture
def call_port():
    callers = []

    def begin(port):
        callers.append(Caller(port))
        return callers[-1]

    yield begin
    for caller in callers:
        caller.socket.close()


@pytest.fixture
def call(call_port, server):
    return lambda: call_port(server.port)


@pytest.fixture
def ask(call):
    def answered(path="/livez", headers="", method="GET"):
        caller = call().connect()
        caller.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        head, _, body = caller.read().partition("\r\n\r\n")
        return int(head.split(" ")[1]), head, body

    return answered


def asked(caller):
    """What a probe is answered."""
    caller.connect().send(IS_ALIVE)
    return caller.read()


def wait_until(is_so):
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- callers that mean no good -----------------------------------------------------------------


def test_probes_get_in_beside_three_hundred_silent_connections(apart, call_port):
    before = apart.descriptors()
    silent = [call_port(apart.port).connect() for _ in range(300)]
    slow = [call_port(apart.port).connect() for _ in range(50)]
    for byte in b"GET /livez HT":
        for caller in slow[-10:]:
            with contextlib.suppress(OSError):  # it made room for others
                caller.send(bytes([byte]))
        assert asked(call_port(apart.port)).endswith(WELL)
    assert apart.descriptors() <= before + http._MOST_CONNECTIONS + 1
    for caller in (*silent, *slow):
        caller.socket.close()
    wait_until(lambda: apart.descriptors() == before)


def test_a_request_has_a_time_in_all_however_it_trickles(server, call, monkeypatch):
    monkeypatch.setattr(http, "_REQUEST_SECONDS", 0.3)
    caller = call().connect()
    wait_until(lambda: server._connections)
    with contextlib.suppress(ConnectionError):
        for _ in range(100):  # far fewer bytes than a request may have
            caller.send(b"x")
            time.sleep(0.02)
    assert not server._connections


def test_a_request_that_is_too_long_is_refused_while_it_comes(call):
    caller = call().connect()
    caller.send(b"GET /livez HTTP/1.1\r\nx: " + b"y" * http._MOST_REQUEST_BYTES)
    assert caller.read().startswith("HTTP/1.1 431 ")


def test_an_answer_that_nobody_reads_is_given_up(server, call, registry, monkeypatch):
    monkeypatch.setattr(http, "_ANSWER_SECONDS", 0.3)
    Gauge("large", "x" * 16_000_000, registry=registry)
    caller = call()
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect().send(b"GET /metrics HTTP/1.1\r\n\r\n")
    caller.socket.recv(1)
    wait_until(lambda: not server._connections)


def test_probes_get_in_where_no_file_can_be_opened(apart, call_port):
    """By a spare one, then by what the oldest connection leaves; and without spinning."""
    before = apart.descriptors()
    assert asked(call_port(apart.port)).endswith(WELL)
    wait_until(lambda: apart.descriptors() == before)
    assert apart.do("fill") > 0
    for _ in range(3):
        call_port(apart.port).connect()
    for _ in range(3):
        assert asked(call_port(apart.port)).endswith(WELL)
    report = apart.do("stop")
    assert 0 < report["made_room"] < 20
    assert report["had_spare"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"POST /livez HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /livez?verbose HTTP/1.0\r\n\r\n", 200),
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", 404),
    ],
)
def test_what_is_no_request_is_refused(call, sent, status):
    caller = call().connect()
    caller.send(sent)
    answer = caller.read()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "Connection: close" in answer


# -- answers -----------------------------------------------------------------------------------


def test_a_dead_service_says_why(probes, ask, monkeypatch):
    monkeypatch.setattr(pages, "_SECOND_LOOK_SECONDS", 0.01)
    probes.dead = ["the loop stands"]
    status, _, body = ask("/livez")
    assert (status, body) == (503, "not alive: the loop stands\n")


def test_one_late_beat_is_looked_at_again(probes, ask, monkeypatch):
    """As of a process that goes on after SIGCONT."""
    monkeypatch.setattr(pages, "_SECOND_LOOK_SECONDS", 0.01)
    probes.dead = ["the loop stands", ""]
    assert ask("/livez")[0] == 200


def test_a_service_that_is_not_ready_says_why(probes, ask):
    assert ask("/readyz")[2] == "ready\n"
    probes.not_ready = ["it stops"]
    status, _, body = ask("/readyz")
    assert (status, body) == (503, "not ready: it stops\n")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version="),
        ("ACCEPT: application/openmetrics-text;version=1.0.0,*/*\r\n", "application/openmetrics"),
    ],
)
def test_a_scrape_gets_the_format_that_it_asks_for(registry, ask, accept, content_type):
    Gauge("rows", "of something", registry=registry).set(3)
    status, head, body = ask("/metrics", accept)
    assert (status, "rows 3.0" in body) == (200, True)
    assert f"Content-Type: {content_type}" in head
    assert f"Content-Length: {len(body.encode())}" in head


class Broken:
    def collect(self):
        yield GaugeMetricFamily("rows", "of something", 1)
        raise ValueError("no number")


def test_a_scrape_that_fails_harms_no_probe(registry, ask, caplog):
    registry._collector_to_names[Broken()] = []
    assert ask("/metrics")[0] == 500
    assert "no number" in caplog.text
    assert ask("/livez")[0] == 200


# -- its life ----------------------------------------------------------------------------------


def test_a_stop_ends_connections_and_leaves_nothing(apart, call_port):
    before = apart.descriptors()
    caller = call_port(apart.port).connect()
    wait_until(lambda: apart.descriptors() > before)
    report = apart.do("stop")
    assert caller.read() == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", apart.port))
    assert (report["runs"], report["left_open"]) == (False, 0)


def test_a_port_that_is_taken_is_named(server, probes, registry):
    with pytest.raises(HttpAddressInUse, match=f"cannot listen on 127.0.0.1:{server.port}"):
        HttpServer("127.0.0.1", server.port, probes.pages(registry))


def test_it_listens_on_both_families_where_it_listens_on_any(probes, registry):
    server = HttpServer("::", 0, probes.pages(registry))
    server.start()
    caller = Caller(server.port)
    assert asked(caller).endswith(WELL)
    caller.socket.close()
    server.stop()
