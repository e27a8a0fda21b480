"""Domain errors to gRPC statuses: one table, at the border."""

from __future__ import annotations

import math
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.engine.errors import (
    ControlDisabled,
    EngineFailed,
    ModelNotFound,
    ModelRefused,
    NotOffered,
    Overloaded,
    PermissionDenied,
    QueueFull,
    ReaderStalled,
    RequestError,
    ResumeInvalid,
    ResumeRefused,
    ServiceStopping,
    TimedOut,
    TryLater,
    Unauthenticated,
    WrongInput,
)

STATUS_OF = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    ControlDisabled: grpc.StatusCode.FAILED_PRECONDITION,
    WrongInput: grpc.StatusCode.INVALID_ARGUMENT,
    ResumeInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    ResumeRefused: grpc.StatusCode.FAILED_PRECONDITION,
    ReaderStalled: grpc.StatusCode.ABORTED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    NotOffered: grpc.StatusCode.UNIMPLEMENTED,
    ServiceStopping: grpc.StatusCode.UNAVAILABLE,
    EngineFailed: grpc.StatusCode.INTERNAL,
}

# A status travels as a header, of which clients take 8 KiB; there a byte may become three.
_MOST_MESSAGE_BYTES = 2048


async def abort(context: grpc.aio.ServicerContext, error: RequestError) -> NoReturn:
    """End the call with the error's status; a full queue says when to come back."""
    trailers = tuple(context.trailing_metadata() or ())
    if isinstance(error, TryLater):
        trailers += _retry_trailers(error)
    await context.abort(STATUS_OF[type(error)], told(error), trailers)
    raise AssertionError("abort() does not return")


def told(error: RequestError) -> str:
    """Its message; one that quotes a long text of the caller's is cut."""
    message = str(error)
    data = message.encode(errors="replace")
    cut = data[:_MOST_MESSAGE_BYTES].decode(errors="ignore")
    return cut if len(data) <= _MOST_MESSAGE_BYTES else f"{cut} …"


def _retry_trailers(error: TryLater) -> tuple[tuple[str, bytes], ...]:
    nanos, seconds = math.modf(error.retry_after_seconds)
    delay = Duration(seconds=int(seconds), nanos=int(nanos * 1e9))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(
        code=code_pb2.RESOURCE_EXHAUSTED, message=str(error), details=[detail]
    )
    return tuple(rpc_status.to_status(status).trailing_metadata)
