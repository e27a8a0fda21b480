"""Several servers as one: addresses, balance, what is tried again, TLS, bearer tokens."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.authority import Authority
from tests.unroll.fakes import Act, FakeServer
from unroll import NO_RETRIES, Client, RequestFailed, Retries, TargetInvalid, Tls
from unroll.channel import service_config, to_address

BROKEN = Act(breaks_after=0)


@pytest.fixture
def start():
    servers = []

    def start(**settings):
        servers.append(FakeServer(**settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def served_by(client):
    return client.list_models().models[0].name


@pytest.mark.parametrize(
    ("target", "address", "authority"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", ""),
        ("somewhere.example:1", "somewhere.example:1", ""),
        ("dns:///somewhere.example:1", "dns:///somewhere.example:1", ""),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv4:127.0.0.1:1,127.0.0.2:1", ""),
        ("127.0.0.1:1, 127.0.0.2:3", "ipv4:127.0.0.1:1,127.0.0.2:3", "127.0.0.1:1"),
        ("[::1]:1,[::2]:3", "ipv6:[::1]:1,[::2]:3", "[::1]:1"),
        ("127.0.0.1:1,[::2]:3", "ipv6:[::ffff:127.0.0.1]:1,[::2]:3", "127.0.0.1:1"),
    ],
)
def test_a_target_is_one_address_or_several(target, address, authority):
    assert to_address(target) == (address, authority)


@pytest.mark.parametrize("target", ["a.example,b.example:1", "127.0.0.1:1,", "127.0.0.1:x,::1:1"])
def test_what_is_no_list_of_addresses_is_refused(target):
    with pytest.raises(TargetInvalid, match="is no HOST:PORT"):
        Client(target)


def test_calls_go_to_each_server_in_turn(start):
    servers = [start() for _ in range(3)]
    with Client(",".join(server.target for server in servers), timeout=20) as client:
        for _ in range(60):
            client.list_models()
    assert sum(server.calls for server in servers) == 60
    # Until the last one is connected the others take its calls.
    assert min(server.calls for server in servers) >= 10


def test_a_call_of_one_message_is_tried_again_where_another_server_may_answer(start):
    first, second = start(acts=[BROKEN] * 20), start(acts=[])
    with Client(f"{first.target},{second.target}", timeout=20) as client:
        for _ in range(5):
            assert served_by(client) == str(second.port)
    first.stop()
    with Client(f"{first.target},{second.target}", timeout=20) as client:
        assert served_by(client) == str(second.port)


def test_no_more_attempts_are_made_than_were_asked_for(start):
    for attempts, made in ((1, 1), (3, 3), (9, 5)):
        server = start(acts=[BROKEN] * 9)
        retries = Retries(attempts, first_seconds=0.001, longest_seconds=0.01)
        with (
            Client(server.target, timeout=20, retries=retries) as client,
            pytest.raises(RequestFailed, match="UNAVAILABLE"),
        ):
            client.list_models()
        assert server.calls == made


def test_other_failures_are_not_tried_again(start):
    server = start(acts=[Act(breaks_after=0, code="INTERNAL")])
    with (
        Client(server.target, timeout=20) as client,
        pytest.raises(RequestFailed, match="INTERNAL"),
    ):
        client.list_models()
    assert server.calls == 1


def test_only_calls_of_one_message_are_tried_again_by_grpc():
    (policy,) = json.loads(service_config(Retries()))["methodConfig"]
    methods = {name["method"] for name in policy["name"]}
    assert methods == {
        "Classify", "Tag", "Fill", "Score", "Embed", "ListModels", "GetModel", "ListStates",
    }  # fmt: skip
    assert "methodConfig" not in json.loads(service_config(NO_RETRIES))


def test_waits_double_up_to_the_longest():
    retries = Retries(first_seconds=0.5, longest_seconds=3.0)
    assert [retries.wait(n, lambda: 1.0) for n in (1, 2, 3, 4, 5000)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert retries.wait(1, lambda: 0.0) == 0.25


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"first_seconds": 0}, {"longest_seconds": 0.01}]
)
def test_retries_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="attempts from 1"):
        Retries(**wrong)


def test_a_token_is_sent_with_every_call(start):
    server = start(token="very-secret")
    with Client(server.target, timeout=20, token="very-secret") as client:
        client.list_models()
        assert list(client.generate("m", prompt="a", max_tokens=3))
        assert list(client.stream_tag("m", ["a b"]))
    for token in ("another", None):
        with (
            Client(server.target, timeout=20, token=token) as client,
            pytest.raises(RequestFailed, match="UNAUTHENTICATED"),
        ):
            client.list_models()


def test_a_token_that_no_header_holds_is_not_reported():
    with pytest.raises(TargetInvalid) as refused:
        Client(token="half a\nsecret")
    assert "secret" not in str(refused.value)


def test_tls_and_a_certificate_of_the_clients_own(start, tmp_path):
    authority = Authority()
    server, own = authority.issue(), authority.issue("caller")
    credentials = grpc.ssl_server_credentials(
        [(server.key, server.certificate)], authority.pem, require_client_auth=True
    )
    first, second = start(credentials=credentials), start(credentials=credentials)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    tls = Tls.read(tmp_path / "ca.crt", *own.write(tmp_path / "own"))
    for target in (first.target, f"{first.target},{second.target}"):
        with Client(target, timeout=20, tls=tls) as client:
            assert served_by(client) in (str(first.port), str(second.port))
    named = Tls(authority.pem, own.certificate, own.key, server_name="localhost")
    with Client(first.target, timeout=20, tls=named) as client:
        assert served_by(client)
    for wrong in (
        Tls(authority.pem),
        Tls(Authority("stranger").pem, own.certificate, own.key),
        Tls(authority.pem, own.certificate, own.key, server_name="elsewhere.example"),
    ):
        with (
            Client(first.target, timeout=20, tls=wrong, retries=NO_RETRIES) as client,
            pytest.raises(RequestFailed, match="UNAVAILABLE"),
        ):
            client.list_models()


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TargetInvalid, match=r"absent\.crt cannot be read"):
        Tls.read(tmp_path / "absent.crt")
    with pytest.raises(TargetInvalid, match="give both"):
        Tls(certificate=b"one")
    assert "private" not in repr(Tls(certificate=b"one", key=b"private"))
