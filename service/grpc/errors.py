"""Domain errors as gRPC statuses: codes, messages, details."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.access.codes import Code, code_of
from service.engine.errors import RequestError, TryLater

_STATUSES = {code: grpc.StatusCode[code.name] for code in Code}

_MOST_PUSHBACK_SECONDS = 5.0

# A status travels as a header, of which clients take 8 KiB; there a byte may become three.
_MOST_MESSAGE_BYTES = 2048


def end_with(context: grpc.aio.ServicerContext, error: RequestError) -> None:
    """Have the call end with the error's status once its handler returns; one to try later says
    when. For handlers of streams, which send no message after that.
    """
    context.set_code(_STATUSES[code_of(error)])
    context.set_details(message_of(error))
    context.set_trailing_metadata(_trailers(context, error))


def abortion(
    context: grpc.aio.ServicerContext, error: RequestError
) -> Coroutine[Any, Any, NoReturn]:
    """As end_with(), for a handler with one answer: awaited, the status goes out by itself, where
    a plain return would send an empty message first, which waits for its reader.

    What grpc raises within is kept by the call, and keeps the frames that it passes: whoever
    awaits this must hold neither the context nor what the call was sent, or they keep each other
    until a full collection.
    """
    trailers = _trailers(context, error)
    aborting: Coroutine[Any, Any, NoReturn] = context.abort(
        _STATUSES[code_of(error)], message_of(error), trailers
    )
    return aborting


def _trailers(
    context: grpc.aio.ServicerContext, error: RequestError
) -> tuple[tuple[str, str | bytes], ...]:
    trailers = tuple(context.trailing_metadata() or ())
    return trailers + (_retry_trailers(error) if isinstance(error, TryLater) else ())


def message_of(error: RequestError) -> str:
    """Its message; one that quotes a long text of the caller's is cut."""
    message = str(error)
    data = message.encode(errors="replace")
    cut = data[:_MOST_MESSAGE_BYTES].decode(errors="ignore")
    return cut if len(data) <= _MOST_MESSAGE_BYTES else f"{cut} …"


def _retry_trailers(error: TryLater) -> tuple[tuple[str, str | bytes], ...]:
    nanos, seconds = math.modf(error.retry_after_seconds)
    delay = Duration(seconds=int(seconds), nanos=int(nanos * 1e9))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(
        code=code_pb2.RESOURCE_EXHAUSTED, message=message_of(error), details=[detail]
    )
    # What grpc's own clients go by where they retry: when, or that it is not worth their waiting.
    is_soon = error.retry_after_seconds <= _MOST_PUSHBACK_SECONDS
    pushback = str(math.ceil(error.retry_after_seconds * 1e3)) if is_soon else "-1"
    trailers = rpc_status.to_status(status).trailing_metadata
    return (*trailers, ("grpc-retry-pushback-ms", pushback))
