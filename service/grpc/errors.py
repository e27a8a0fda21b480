"""Domain errors as gRPC's statuses."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn

import grpc

from service.access.codes import Code
from service.engine.errors import RequestError
from service.rpc.status import Status, status_of

_STATUSES = {code: grpc.StatusCode[code.name] for code in Code}


def end_with(context: grpc.aio.ServicerContext, error: RequestError) -> None:
    """Have the call end with the error's status once its handler returns; one to try later says
    when. For handlers of streams, which send no message after that.
    """
    status = status_of(error)
    context.set_code(_STATUSES[status.code])
    context.set_details(status.message)
    context.set_trailing_metadata(_trailers(context, status))


def abortion(
    context: grpc.aio.ServicerContext, error: RequestError
) -> Coroutine[Any, Any, NoReturn]:
    """As end_with(), for a handler with one answer: awaited, the status goes out by itself, where
    a plain return would send an empty message first, which waits for its reader.

    What grpc raises within is kept by the call, and keeps the frames that it passes: whoever
    awaits this must hold neither the context nor what the call was sent, or they keep each other
    until a full collection.
    """
    status = status_of(error)
    aborting: Coroutine[Any, Any, NoReturn] = context.abort(
        _STATUSES[status.code], status.message, _trailers(context, status)
    )
    return aborting


def _trailers(
    context: grpc.aio.ServicerContext, status: Status
) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(context.trailing_metadata() or ()) + status.trailers()
