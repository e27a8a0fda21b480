"""Which pages' scripts may call, and what is said to browsers."""

from __future__ import annotations

import pytest

from service.asgi.cors import Origins
from service.config import Config, ConfigInvalid
from tests.service.connect.conftest import PAGE, UNROLL, Caller
from unroll import Client

CLASSIFY = f"{UNROLL}/Classify"
ASKED = '{"model":"mood","texts":["a b"]}'


def preflight(caller: Caller, origin: str) -> dict[str, str]:
    answer = caller.ask(
        CLASSIFY,
        method="OPTIONS",
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers="authorization,connect-protocol-version",
    )
    assert (answer.status, answer.body) == (204, b"")
    return answer.headers


def test_a_page_that_may_call_is_told_so(http_caller):
    headers = preflight(http_caller, PAGE)
    assert headers["access-control-allow-origin"] == PAGE
    assert "POST" in headers["access-control-allow-methods"]
    allowed = headers["access-control-allow-headers"]
    assert allowed == "authorization,connect-protocol-version"
    answer = http_caller.json("Classify", ASKED, origin=PAGE)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_another_page_is_told_nothing(http_caller):
    """Its browser keeps the answer from it; what it asked was no simple request."""
    other = "https://page.example.evil.example"
    answer = http_caller.json("Classify", ASKED, origin=other)
    for headers in (preflight(http_caller, other), answer.headers):
        assert "access-control-allow-origin" not in headers


def test_failures_can_be_read_too(http_caller):
    answer = http_caller.json("Classify", "{}", origin=PAGE)
    assert answer.status == 404
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_without_origins_nothing_is_said(start_service):
    service = start_service(front_end="envoy")
    caller = Caller(service.target)
    assert "access-control-allow-origin" not in caller.json("Classify", ASKED, origin=PAGE).headers
    answer = caller.ask(
        CLASSIFY, method="OPTIONS", origin=PAGE, access_control_request_method="POST"
    )
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    with Client(service.target, timeout=20) as client:
        assert client.list_models().models


def test_a_star_is_every_page():
    anybody, nobody = Origins(["*"]), Origins(())
    assert anybody.allow(b"https://a.example")
    assert anybody.allow(b"null")
    assert not nobody.allow(b"https://a.example")
    assert (bool(anybody), bool(nobody)) == (True, False)


@pytest.mark.parametrize(
    ("origin", "host", "may"),
    [
        (b"", b"a:1", True),
        (b"http://a:1", b"a:1", True),
        (b"http://a:1", b"a:2", False),
        (b"http://b", b"a", False),
        (b"null", b"", False),
        (b"http://[", b"a", False),
    ],
)
def test_a_page_of_the_server_itself_may_open_sockets(
    origin: bytes, host: bytes, may: bool
) -> None:
    headers = [(b"host", host)] + [(b"origin", origin)] * bool(origin)
    assert Origins(()).allow_page({"headers": headers}) is may


@pytest.mark.parametrize(
    "origins", ["page.example", "https://", "https://a.example/", "https://a, https://b", "a,*"]
)
def test_origins_that_are_none_stop_the_start(origins: str) -> None:
    with pytest.raises(ConfigInvalid, match="cors_origins"):
        Config(cors_origins=origins)


def test_origins_that_are_some_do_not():
    Config(cors_origins="https://a.example,http://127.0.0.1:8080")
    Config(cors_origins="*")
