"""The service as a process: its start, its refusals to start, its end."""

import fcntl
import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest

from service.access.auth import new_token
from tests.authority import Authority
from tests.service.processes import port_of, ports_of, serve
from tests.tiny import NAMES
from unroll import Client, RequestFailed


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
    assert "stopped, every call finished or was handed over" in process.output


def test_sigterm_announces_first_and_refuses_later(run, tiny_models):
    """Not ready, and still taking calls; then refused; what runs finishes; exit 0."""
    process = run(
        "serve", "--models", tiny_models, "--address", "127.0.0.1:0", "--http-address",
        "127.0.0.1:0", "--propagation-seconds", "3",
    )  # fmt: skip
    line = process.read_until("ready: gRPC on port")
    port, http = (part.split(",")[0].strip() for part in line.split("on port ")[1:])
    ready = f"http://127.0.0.1:{http}/readyz"
    with Client(f"127.0.0.1:{port}", timeout=20) as client:
        assert urllib.request.urlopen(ready, timeout=5).status == 200
        process.process.send_signal(signal.SIGTERM)
        process.read_until("not ready any more, takes calls for 3 s")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(ready, timeout=5)
        assert len(client.classify("mood", ["good"])) == 1
    assert process.end() == 0


def test_a_second_signal_ends_at_once_and_a_hang_up_does_nothing(run, tiny_models):
    process = run(
        "serve", "--models", tiny_models, "--address", "127.0.0.1:0", "--http-address",
        "127.0.0.1:0", "--propagation-seconds", "600",
    )  # fmt: skip
    port_of(process)
    process.process.send_signal(signal.SIGTERM)
    process.read_until("not ready any more, takes calls for 600 s")
    process.process.send_signal(signal.SIGHUP)
    time.sleep(0.1)  # it would have ended it
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 128 + signal.SIGTERM


def list_models(port, times):
    with Client(f"127.0.0.1:{port}", timeout=20) as client:
        for _ in range(times):
            client.list_models()


def test_a_log_that_nobody_reads_holds_nothing_up(run, tiny_models):
    """Calls, probes, a stop; and the log says what it lost once somebody reads it."""
    process = run(
        "serve", "--models", tiny_models, "--address", "127.0.0.1:0", "--http-address",
        "127.0.0.1:0", "--propagation-seconds", "0", "--log-requests", "--log-queue-bytes", "65536",
    )  # fmt: skip
    fcntl.fcntl(process.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    port, http = ports_of(process)
    list_models(port, 500)
    assert page_of(http, "/livez") == "alive\n"
    assert 0 < dropped_of(http) < 500
    assert re.search(r" \d+ lines of the log were dropped", process.read_until("were dropped"))
    list_models(port, 500)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(30) == 0


def dropped_of(http):
    page = page_of(http, "/metrics")
    return float(re.search(r'lines_dropped_total\{level="info"\} (.*)', page)[1])


def page_of(http, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=20) as answer:
        return answer.read().decode()


def test_a_hang_up_reads_again_and_a_process_that_was_stopped_is_not_dead(
    run, tiny_models, tmp_path
):
    settings, tokens = tmp_path / "unroll.toml", tmp_path / "tokens"
    settings.write_text('log_level = "warning"\nliveness_seconds = 3.0\n')
    (first, line), (second, other) = new_token("ann", ["infer"]), new_token("bob", ["infer"])
    tokens.write_text(f"{line}\n")
    secured = ("--config", settings, "--auth-tokens", tokens)
    process = serve(run, tiny_models, *secured, "--log-level", "info")
    port, http = ports_of(process)
    with Client(f"127.0.0.1:{port}", timeout=20, token=first) as client:
        client.list_models()
    settings.write_text('log_level = "debug"\nmax_queue = 7\n')
    tokens.write_text(f"{other}\n")
    process.process.send_signal(signal.SIGHUP)
    line = process.read_until("needs a restart")
    assert line.endswith("needs a restart: max_queue, liveness_seconds\n")
    with Client(f"127.0.0.1:{port}", timeout=20, token=second) as client:
        client.list_models()
    settings.write_text("log_level = 3\n")
    process.process.send_signal(signal.SIGHUP)
    process.read_until("the settings stay as they are")
    process.process.send_signal(signal.SIGSTOP)
    time.sleep(3.5)
    process.process.send_signal(signal.SIGCONT)
    assert page_of(http, "/livez") == "alive\n"
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 0


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


def test_a_caller_without_tls_leaves_no_line_that_is_not_of_the_log(run, tiny_models, tmp_path):
    certificate, key = Authority().issue().write(tmp_path)
    secured = ("--tls-certificate", certificate, "--tls-key", key)
    process = serve(run, tiny_models, "--log-format", "json", *secured)
    with socket.create_connection(("127.0.0.1", int(port_of(process)))) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert caller.recv(1024) == b""  # turned away
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 0
    for line in process.output.splitlines():
        json.loads(line)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--device", "cuda"), 1, "cannot start: --device cuda"),
        (("--device", "tpu"), 2, "device is 'tpu'; choose auto, cpu or cuda"),
        (("--threads", "two"), 2, "--threads is 'two'; threads takes a whole number"),
        (("--address", "0.0.0.0:0"), 2, "which others can reach, and there is no TLS"),
        (("--config", "/no/such/file"), 2, "config: /no/such/file cannot be read"),
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
