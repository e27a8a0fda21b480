"""Observation of requests: ids in every log line, a request's own line, a span."""

from __future__ import annotations

import logging
import re
import time
from random import getrandbits
from typing import TYPE_CHECKING
from urllib.parse import unquote

from service.access.call import CallContext, RequestInfo
from service.access.codes import Code
from service.access.identity import Metadata
from service.engine.errors import RequestError
from service.observability.logs import IDS, Ids
from service.observability.outcome import Outcome
from service.serving.request_timing import TIMELINE, Timeline

if TYPE_CHECKING:
    from service.observability.tracing import RequestSpan, Tracing

log = logging.getLogger("service.requests")

REQUEST_ID = "x-request-id"
_TRACE_PARENT = "traceparent"
# What goes into a line and into a header as it is.
_USABLE_ID = re.compile(r"[!-~]{1,128}")
_TRACE_OF_PARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


class RequestObserver:
    """tracing: where spans go; None for nowhere. logs_requests, logs_texts: a line for each, and
    the text in it."""

    def __init__(
        self, tracing: Tracing | None = None, logs_requests: bool = False, logs_texts: bool = False
    ) -> None:
        self.tracing = tracing
        self.logs_requests = logs_requests
        self.logs_texts = logs_texts

    @property
    def times_requests(self) -> bool:
        """Whether anything is recorded of a request beside its ids."""
        return self.tracing is not None or self.logs_requests

    def start(self) -> None:
        if self.tracing:
            self.tracing.start()

    async def stop(self, seconds: float) -> None:
        """seconds: that sending the last spans may take."""
        if self.tracing:
            await self.tracing.stop(seconds)

    def open(self, call: CallContext) -> None:
        """A call begins that holds many requests."""
        request_id, trace_id = _given(call.metadata)
        request_id = request_id or _new_id()
        IDS.set(Ids(request_id, trace_id))
        call.set_trailer(REQUEST_ID, request_id)

    def begin(self, call: CallContext) -> RequestObservation:
        return RequestObservation(self, call)


class RequestObservation:
    """One request while it is observed; RequestObserver.begin() makes it."""

    def __init__(self, observer: RequestObserver, call: CallContext) -> None:
        self._observer, self._call = observer, call
        metadata = call.metadata
        self._given_id, trace_id = _given(metadata)
        self._timeline: Timeline | None = None
        self._span: RequestSpan | None = None
        if observer.times_requests:
            self._began, self._began_ns = time.monotonic(), time.time_ns()
            self._timeline = Timeline()
            if observer.tracing:
                name = f"{call.service}/{call.method}"
                self._span = observer.tracing.begin(name, metadata, self._began_ns)
                trace_id = self._span.trace_id
        TIMELINE.set(self._timeline)
        of_call = IDS.get() if call.is_multiplexed else None  # as open() has set it
        self._ids = Ids(self._given_id or (of_call.request if of_call else _new_id()), trace_id)
        IDS.set(self._ids)

    def request_read(self, request: RequestInfo) -> None:
        """Its message was read; it may yet be refused."""
        own, given = request.id, self._given_id
        if _USABLE_ID.fullmatch(own) and not (given and not self._call.is_multiplexed):
            self._ids = Ids(f"{given}/{own}" if given else own, self._ids.trace)
            IDS.set(self._ids)

    def end(
        self,
        request: RequestInfo | None,
        model: str,
        caller: str,
        code: Code,
        failure: RequestError | None,
    ) -> None:
        """Nothing of it follows but its status.

        request: None for one that was never read. model: its label. caller: its name.
        """
        call, observer = self._call, self._observer
        if not call.is_multiplexed:  # there it is the call's, and responses bring their own
            call.set_trailer(REQUEST_ID, self._ids.request)
        if self._timeline is None:
            return
        outcome = Outcome(
            self._ids,
            call.protocol,
            call.service,
            call.method,
            model,
            code,
            type(failure).__name__ if failure else "",
            caller,
            self._began,
            self._began_ns,
            time.monotonic(),
            self._timeline,
        )
        if observer.logs_requests and log.isEnabledFor(logging.INFO):
            self._log(request, outcome, failure)
        if self._span:
            self._span.end(outcome)

    def _log(
        self, request: RequestInfo | None, outcome: Outcome, failure: RequestError | None
    ) -> None:
        fields = {
            "method": outcome.method,
            "model": outcome.model,
            "code": outcome.code.name,
            "seconds": round(outcome.ended - outcome.began, 6),
            **outcome.figures,
            "peer": unquote(self._call.peer),
            "caller": outcome.caller,
            "error": outcome.error,
        }
        if self._observer.logs_texts:
            # The message of an error quotes what its caller sent.
            fields |= {
                "error_message": str(failure or ""),
                "text": request.text() if request else "",
            }
        known = {name: value for name, value in fields.items() if value != ""}
        log.info("request", extra={"fields": known})


def _given(metadata: Metadata) -> tuple[str, str]:
    """The usable request id and the trace id that a caller sent, empty for none."""
    request_id = trace_id = ""
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and _USABLE_ID.fullmatch(value):
            request_id = value
        elif key == _TRACE_PARENT and isinstance(value, str):
            found = _TRACE_OF_PARENT.fullmatch(value)
            trace_id = found[1] if found else ""
    return request_id, trace_id


def _new_id() -> str:
    return f"{getrandbits(64):016x}"
