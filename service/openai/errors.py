"""Refusals in the shape that OpenAI's clients read."""

from __future__ import annotations

import json
from dataclasses import dataclass

from service.access.codes import Code
from service.asgi.events import Send
from service.asgi.http import headers_of, http_status
from service.openai.sending import send_json
from service.rpc.status import Status

INVALID_REQUEST = "invalid_request_error"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    499: "server_error",
}
_CODES = {
    Code.NOT_FOUND: "model_not_found",
    Code.UNAUTHENTICATED: "invalid_api_key",
    Code.RESOURCE_EXHAUSTED: "rate_limit_exceeded",
}
# Clients try 429 and 5xx again, unless this says that it is of no use.
_NO_RETRY = (b"x-should-retry", b"false")


class FieldInvalid(Exception):
    """A field that a request may not have, or not so. The message says what to send.

    param: the field. code: for programs.
    """

    def __init__(self, param: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code


@dataclass(frozen=True)
class Refusal:
    """What a request gets instead of an answer.

    status: of HTTP. param: the field that it is about. code: for programs.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def json(self) -> bytes:
        kind = _TYPES.get(self.status) or ("server_error" if self.status >= 500 else None)
        error = {
            "message": self.message,
            "type": kind or INVALID_REQUEST,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}, separators=(",", ":")).encode()

    async def send(self, send: Send) -> None:
        await send_json(send, self.status, self.json(), self.headers)


def refusal_of(status: Status, param: str | None = None, code: str | None = None) -> Refusal:
    """Of a call that failed."""
    headers = headers_of(status)
    if status.code is Code.RESOURCE_EXHAUSTED and status.retry_after_seconds is None:
        headers.append(_NO_RETRY)
    return Refusal(
        http_status(status), status.message, param, code or _CODES.get(status.code), tuple(headers)
    )
