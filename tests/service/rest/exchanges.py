"""Requests of HTTP/1.1 as tests send them, and their responses."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

SECONDS = 30


@dataclass(frozen=True)
class Reply:
    """headers: by name in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def found(self) -> Any:
        """Its JSON."""
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(length)] if length else self.body)

    @property
    def tail(self) -> bytes:
        """What follows the JSON."""
        return self.body[int(self.headers["inference-header-content-length"]) :]

    @property
    def error(self) -> str:
        return self.found["error"]


class Rest:
    """Calls of one service, each on a connection of its own."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, b"", **headers)

    def post(self, path: str, content: Any = b"", **headers: str) -> Reply:
        """content: bytes as they are, else what is sent as JSON."""
        return self.send("POST", path, content, **headers)

    def infer(self, model: str, content: Any, **headers: str) -> Reply:
        return self.post(f"/v2/models/{model}/infer", content, **headers)

    def send(self, method: str, path: str, content: Any = b"", **headers: str) -> Reply:
        """headers: with underscores for dashes."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        with closing(http.client.HTTPConnection(self.target, timeout=SECONDS)) as connection:
            connection.request(method, path, body or None, _named(headers))
            return _reply(connection.getresponse())

    @contextmanager
    def open(self, path: str, content: Any) -> Iterator[http.client.HTTPResponse]:
        """A response to read as it comes; its connection is closed at the end of the block."""
        with closing(http.client.HTTPConnection(self.target, timeout=SECONDS)) as connection:
            connection.request("POST", path, json.dumps(content))
            with connection.getresponse() as response:
                yield response


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _reply(response: http.client.HTTPResponse) -> Reply:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def texts(*values: str, name: str = "text", **parts: Any) -> dict[str, Any]:
    """An input of BYTES of shape [batch, 1]."""
    tensor = {"name": name, "datatype": "BYTES", "shape": [len(values), 1], "data": list(values)}
    return tensor | parts


def events_of(body: bytes) -> list[Any]:
    """Of server-sent events their data."""
    parts = body.decode().split("\n\n")
    assert parts.pop() == "", "the last event is whole"
    assert all(part.startswith("data: ") for part in parts), parts
    return [json.loads(part.removeprefix("data: ")) for part in parts]
