"""Exchanges of HTTP with an endpoint."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from conformance.cases import Failure, brief, expect

HEADER_LENGTH = "Inference-Header-Content-Length"
BLAMES = "a status of 4xx, or 501, that blames the request"


@dataclass(frozen=True)
class Reply:
    """headers: by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def found(self) -> Any:
        """The JSON in the body. Raises Failure where there is none."""
        text = self.body[: self.json_length()]
        try:
            return json.loads(text)
        except ValueError as error:
            raise Failure("a body of JSON", f"{error}: {brief(text)}") from error

    def json_length(self) -> int:
        """Of what comes before binary tensors. Raises Failure."""
        length = self.headers.get(HEADER_LENGTH.lower())
        if length is None:
            return len(self.body)
        fits = length.isdigit() and int(length) <= len(self.body)
        expect(fits, f"{HEADER_LENGTH} of at most {len(self.body)}", repr(length))
        return int(length)

    @property
    def tail(self) -> bytes:
        """The binary tensors."""
        return self.body[self.json_length() :]


def exchange(
    target: str,
    timeout: float,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """On a connection of its own. Raises OSError or HTTPException where no response comes."""
    with closing(http.client.HTTPConnection(target, timeout=timeout)) as connection:
        connection.request(method, path, body or None, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())


class Rest:
    """Calls of one endpoint over HTTP. target: host and port."""

    def __init__(self, target: str, timeout: float) -> None:
        self.target, self.timeout = target, timeout

    def send(
        self, method: str, path: str, content: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """content: bytes as they are, else what is sent as JSON. Raises Failure without a
        response."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            return exchange(self.target, self.timeout, method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise Failure("a response", repr(error)) from error

    def get(self, path: str) -> Any:
        """The JSON of an answer. Raises Failure."""
        return answered(self.send("GET", path)).found

    def is_offered(self) -> bool:
        """Whether anybody speaks it there."""
        try:
            reply = exchange(self.target, self.timeout, "GET", "/v2")
        except (OSError, http.client.HTTPException):
            return False
        return reply.status not in (404, 501)


def answered(reply: Reply) -> Reply:
    """Raises Failure for any status but 200."""
    expect(reply.status == 200, "status 200", f"{reply.status}: {brief(reply.body)}")
    return reply


def refused(reply: Reply, *others: int) -> Reply:
    """Raises Failure for a status that does not blame the request. others: that may stand, too."""
    blames = 400 <= reply.status < 500 or reply.status in (501, *others)
    expect(blames, BLAMES, f"{reply.status}: {brief(reply.body)}")
    return reply
