"""The service as a process: its start, its refusals to start, its end."""

import signal
import subprocess
import sys
import time

import pytest

from client import Client, RequestFailed
from tests.tiny import NAMES


class Process:
    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def read_until(self, text):
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return line
        raise AssertionError(f"{text!r} is not in: {self.output}")

    def end(self):
        self.output += self.process.communicate(timeout=30)[0]
        return self.process.returncode


@pytest.fixture
def run():
    started = []

    def start(*arguments):
        process = Process(*map(str, arguments))
        started.append(process.process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def serve(run, models, *arguments):
    free_ports = ("--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
    return run("serve", "--models", models, *free_ports, *arguments)


def port_of(process):
    line = process.read_until("ready: gRPC on port")
    return line.split("gRPC on port ")[1].split(",")[0]


def test_sigterm_finishes_streams_and_exits_zero(run, tiny_models):
    process = serve(run, tiny_models)
    with Client(f"127.0.0.1:{port_of(process)}", timeout=20) as client:
        streams = [client.generate("letters", prompt="a", max_tokens=400) for _ in range(20)]
        started = [next(stream) for stream in streams]
        process.process.send_signal(signal.SIGTERM)
        for first, stream in zip(started, streams, strict=True):
            last = [first, *stream][-1]
            assert last.answer.output_tokens == 400
    assert process.end() == 0
    assert "stopped, every call finished" in process.output


def test_ctrl_c_exits_zero(run, tiny_models):
    process = serve(run, tiny_models)
    port_of(process)
    process.process.send_signal(signal.SIGINT)
    assert process.end() == 0


def test_the_port_is_not_shared_with_another_server(run, tiny_models):
    first = serve(run, tiny_models)
    address = f"127.0.0.1:{port_of(first)}"
    other = ("--address", address, "--http-address", "127.0.0.1:0")
    second = run("serve", "--models", tiny_models, *other)
    assert second.end() == 1
    assert f"cannot listen on {address}" in second.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--device", "cuda"), 1, "cannot start: --device cuda"),
        (("--device", "tpu"), 2, "device is 'tpu'; choose auto, cpu or cuda"),
        (("--threads", "1000"), 2, "threads is 1000, this process may use"),
        (("--max-streams", "0"), 2, "max_streams is 0; choose at least 1"),
        (("--grace-seconds", "nan"), 2, "grace_seconds is nan"),
        (("--address", "nowhere"), 2, "address is 'nowhere'; write HOST:PORT"),
        (("--http-address", "127.0.0.1:99999"), 2, "write HOST:PORT"),
        (("--models", "/no/such/folder"), 1, "holds no bundle"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(run, tiny_models, arguments, code, message):
    process = run("serve", "--models", tiny_models, *arguments)
    assert process.end() == code
    assert message in process.output


def test_nothing_to_serve_stops_the_start(run, models_copy):
    for manifest in models_copy.glob("*/1/manifest.json"):
        manifest.unlink()
    process = serve(run, models_copy)
    assert process.end() == 1
    assert "manifest.json cannot be read" in process.output


def test_check_names_every_bundle_and_fails_for_a_spoiled_one(run, models_copy):
    good = run("check", "--models", models_copy)
    assert good.end() == 0
    assert good.output.count("files verified") == len(NAMES)
    (models_copy / "mood" / "1" / "predict.onnx").write_bytes(b"")
    spoiled = run("check", "--models", models_copy)
    assert spoiled.end() == 1
    assert "REFUSED" in spoiled.output
    assert "predict.onnx has 0 bytes" in spoiled.output


def test_the_client_says_when_there_is_no_server():
    started = time.monotonic()
    with Client("127.0.0.1:1") as client, pytest.raises(RequestFailed, match="UNAVAILABLE"):
        client.list_models()
    assert time.monotonic() - started < 20
