"""A service behind Envoy, and callers that know no more of it than HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import RunningService, running

PAGE = "https://page.example"
UNROLL = "/unroll.v1.UnrollService"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """One connection of HTTP/1.1 for each request."""

    def __init__(self, target: str) -> None:
        self.target = target

    def ask(
        self, path: str, body: bytes | None = None, method: str = "POST", **headers: str
    ) -> Answer:
        """headers: with underscores for hyphens."""
        connection = http.client.HTTPConnection(self.target, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            read = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, read, response.read())
        finally:
            connection.close()

    def json(self, name: str, text: str, **headers: str) -> Answer:
        """Of unroll.v1's method of that name."""
        return self.ask(
            f"{UNROLL}/{name}", text.encode(), content_type="application/json", **headers
        )


@pytest.fixture(scope="session")
def envoy_service(tiny_models: Path) -> Iterator[RunningService]:
    with running(tiny_models, front_end="envoy", cors_origins=PAGE) as service:
        yield service


@pytest.fixture
def http_caller(envoy_service: RunningService) -> Caller:
    return Caller(envoy_service.target)


def envelopes(body: bytes) -> list[tuple[int, bytes]]:
    """(flags, message) of each."""
    found = []
    while body:
        size = int.from_bytes(body[1:5])
        assert len(body) >= 5 + size, "the last envelope is cut off"
        found.append((body[0], body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def enveloped(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)
