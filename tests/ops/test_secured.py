"""One replica as production runs it: mutual TLS, tokens, JSON logs, traces; all changed live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from tests.authority import Authority
from tests.service.observability.test_tracing import Collector
from unroll import NO_RETRIES, Client, RequestFailed, Sampling, Tls
from unroll.inference import grpc_service_pb2 as oip
from unroll.inference import grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

pytestmark = pytest.mark.ops

TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "Canary, thou privy fowl"


def make_token(name, roles):
    """A token and its line, as the operator makes them."""
    command = [sys.executable, "-m", "service", "token", name, "--roles", roles]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return made[0], made[1]


def replace(path, content):
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    os.replace(beside, path)


def seen_end(openssl, replica, folder, pair):
    """The end of the certificate that a new connection is shown."""
    certificate, key = pair.write(folder / "probe")
    shake = [openssl, "s_client", "-connect", replica.target, "-alpn", "h2",
             "-cert", str(certificate), "-key", str(key)]  # fmt: skip
    # After its handshake it prints what the server sends, which is no text.
    shown = subprocess.run(shake, input=b"", capture_output=True, timeout=20).stdout
    read = [openssl, "x509", "-noout", "-enddate"]
    end = subprocess.run(read, input=shown, capture_output=True, timeout=20, check=True).stdout
    return end.decode().strip()


def test_everything_that_guards_a_replica_changes_while_it_streams(
    need, start_replica, tmp_path, saw
):
    (openssl,) = need("openssl", package="openssl")
    authority, strangers = Authority(), Authority("strangers")
    now = datetime.now(UTC)
    first, later = (
        authority.issue(until=now + timedelta(2)),
        authority.issue(until=now + timedelta(9)),
    )
    certificate, key = first.write(tmp_path / "server")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    infer, infer_line = make_token("writer", "infer")
    admin, admin_line = make_token("operator", "admin")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{infer_line}\n{admin_line}\n")
    collector = Collector()
    replica = start_replica(
        "--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(ca),
        "--auth-tokens", str(tokens), "--log-format", "json", "--log-requests",
        "--trace-endpoint", collector.endpoint, "--propagation-seconds", "0",
    )  # fmt: skip
    own = authority.issue("caller")
    tls = Tls(authority.pem, own.certificate, own.key)

    def client(token=infer, tls=tls):
        return Client(replica.target, timeout=30, tls=tls, token=token)

    def generate(one, tokens=20):
        options = {"prompt": CANARY, "max_tokens": tokens, "sampling": Sampling(seed=1)}
        return "".join(piece.text for piece in one.generate("prose", **options))

    def code(one):
        with pytest.raises(RequestFailed) as refused:
            generate(one)
        return refused.value.code

    refusals = {}
    with client(token=None) as one:
        refusals["no token"] = code(one)
    with client(token="wrong") as one:
        refusals["unknown token"] = code(one)
    with client(token=admin) as one:
        refusals["role admin"] = code(one)
    foreign = strangers.issue("stranger")
    for what, keys in (
        ("no certificate", Tls(authority.pem)),
        ("a stranger's certificate", Tls(authority.pem, foreign.certificate, foreign.key)),
    ):
        with Client(replica.target, timeout=20, tls=keys, token=infer, retries=NO_RETRIES) as one:
            refusals[what] = code(one)
    assert refusals == {
        "no token": "UNAUTHENTICATED",
        "unknown token": "UNAUTHENTICATED",
        "role admin": "PERMISSION_DENIED",
        "no certificate": "UNAVAILABLE",
        "a stranger's certificate": "UNAVAILABLE",
    }

    # A stream that is open while everything changes.
    credentials = grpc.ssl_channel_credentials(authority.pem, own.key, own.certificate)
    channel = grpc.secure_channel(replica.target, credentials)
    bearer = ("authorization", f"Bearer {infer}")
    call = unroll_pb2_grpc.UnrollServiceStub(channel).Generate(
        pb.GenerateRequest(model="prose", prompt=CANARY, max_tokens=2000),
        timeout=60,
        metadata=(bearer, ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")),
    )
    next(call)
    before = seen_end(openssl, replica, tmp_path, own)
    replace(certificate, later.certificate)
    replace(key, later.key)
    renewed, renewed_line = make_token("writer", "infer")
    replace(tokens, f"{renewed_line}\n{admin_line}\n".encode())
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while (after := seen_end(openssl, replica, tmp_path, own)) == before:
        assert datetime.now(UTC) < deadline, "the new certificate is not shown"
    assert f"{now + timedelta(9):%b %e}" in after
    with client(token=infer) as old, client(token=renewed) as new:
        assert code(old) == "UNAUTHENTICATED"
        text = generate(new)
    assert len(text) == 20
    rest = list(call)
    assert rest[-1].usage.output_tokens == 2000, "the open stream was not touched"
    request_id = dict(call.trailing_metadata())["x-request-id"]
    logs = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = oip.LogSettingsRequest()
    request.settings["log_verbose_level"].uint32_param = 1
    with pytest.raises(grpc.RpcError) as denied:
        logs.LogSettings(request, timeout=10, metadata=(("authorization", f"Bearer {renewed}"),))
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    bearer = ("authorization", f"Bearer {admin}")
    answer = logs.LogSettings(request, timeout=10, metadata=(bearer,))
    assert answer.settings["log_verbose_level"].uint32_param == 1
    channel.close()
    replica.terminate()
    exit_code = replica.wait()
    assert exit_code == 0

    lines = [json.loads(line) for line in replica.output.splitlines()]
    of_stream = [line for line in lines if line.get("request_id") == request_id]
    assert [line["trace_id"] for line in of_stream] == [TRACE] * len(of_stream)
    assert [line["output_tokens"] for line in of_stream if "output_tokens" in line] == [2000]
    for secret in (infer, admin, renewed, CANARY, "privy"):
        assert secret not in replica.output
    traced = [span for span in collector.wait_for(3) if span.trace_id.hex() == TRACE]
    assert len(traced) == 1
    events = [event.name for event in traced[0].events]
    assert events == ["received", "queued", "started", "primed", "first_token", "finished"]
    collector.stop()
    saw(
        f"mutual TLS by openssl's own handshake, certificate renewed ({before} → "
        f"{after}) and token replaced under a stream of 2,000 tokens; "
        f"{len(refusals) + 2} kinds of caller refused; {len(lines)} JSON lines, none with a token "
        f"or a text; {len(collector.spans)} spans, that stream's under its caller's trace; "
        f"exit {exit_code}"
    )
