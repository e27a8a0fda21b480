"""Domain errors as statuses of calls: code, message, when to try again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from service.access.codes import Code, code_of
from service.engine.errors import RequestError, TryLater

DETAILS_TRAILER = "grpc-status-details-bin"

_MOST_PUSHBACK_SECONDS = 5.0

# A status travels as a header, of which clients take 8 KiB; there a byte may become three.
_MOST_MESSAGE_BYTES = 2048


@dataclass(frozen=True)
class Status:
    """How a call ended. retry_after_seconds: None where trying again is of no use."""

    code: Code
    message: str = ""
    retry_after_seconds: float | None = None

    def details(self) -> list[any_pb2.Any]:
        """google.rpc's messages that say more."""
        if self.retry_after_seconds is None:
            return []
        nanos, seconds = math.modf(self.retry_after_seconds)
        delay = Duration(seconds=int(seconds), nanos=int(nanos * 1e9))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return [detail]

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """What says when to try again, for clients of gRPC."""
        if self.retry_after_seconds is None:
            return ()
        status = status_pb2.Status(
            code=int(self.code), message=self.message, details=self.details()
        )
        # What grpc's own clients go by where they retry: when, or that it is not worth their
        # waiting.
        is_soon = self.retry_after_seconds <= _MOST_PUSHBACK_SECONDS
        pushback = str(math.ceil(self.retry_after_seconds * 1e3)) if is_soon else "-1"
        return (
            (DETAILS_TRAILER, status.SerializeToString()),
            ("grpc-retry-pushback-ms", pushback),
        )


OK = Status(Code.OK)


def status_of(error: RequestError) -> Status:
    after = error.retry_after_seconds if isinstance(error, TryLater) else None
    return Status(code_of(error), message_of(error), after)


def message_of(error: RequestError) -> str:
    """Its message; one that quotes a long text of the caller's is cut."""
    message = str(error)
    data = message.encode(errors="replace")
    cut = data[:_MOST_MESSAGE_BYTES].decode(errors="ignore")
    return cut if len(data) <= _MOST_MESSAGE_BYTES else f"{cut} …"
