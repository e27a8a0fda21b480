"""What is told of each request: its ids in every line of the log, a line of its own, a span."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from random import getrandbits
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from service.access.admission import CALLER, Metadata, RequestObservation
from service.config import Config
from service.engine.errors import RequestError
from service.observability.logs import IDS, Ids
from service.oip.streaming import METHOD as STREAM_INFER
from service.serving.request_timing import TIMELINE, Timeline
from unroll.inference import grpc_service_pb2
from unroll.v1 import unroll_pb2

log = logging.getLogger("service.requests")

REQUEST_ID = "x-request-id"
_TRACE_PARENT = "traceparent"
# What goes into a line and into a header as it is.
_USABLE_ID = re.compile(r"[!-~]{1,128}")
_TRACE_OF_PARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
# Of a request whose text is logged; a longer one is not worth the event loop's time.
_MOST_TEXT_BYTES = 16_384

# The full name of the service of each method.
SERVICES: dict[str, str] = {
    method.name: service.full_name
    for file in (unroll_pb2, grpc_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request that ended. model: its label. error: the kind of what it failed with, or empty.

    began, ended: on the clock of ``timeline``. began_ns: in nanoseconds since 1970.
    """

    ids: Ids
    method: str
    model: str
    code: grpc.StatusCode
    error: str
    caller: str
    began: float
    began_ns: int
    ended: float
    timeline: Timeline

    @property
    def service(self) -> str:
        return SERVICES[self.method]

    def nanoseconds(self, moment: float) -> int:
        """``moment`` since 1970."""
        return self.began_ns + int((moment - self.began) * 1e9)

    @property
    def figures(self) -> dict[str, Any]:
        """What is known of how it went, by name."""
        timeline = self.timeline
        known = {
            "queue_seconds": _between(timeline.queued, timeline.started),
            "first_token_seconds": _between(timeline.queued, timeline.first_token),
            "input_tokens": timeline.input_tokens,
            "output_tokens": timeline.output_tokens,
            "finish_reason": timeline.reason.value if timeline.reason else None,
        }
        return {name: value for name, value in known.items() if value is not None}


class Span(Protocol):
    """trace_id: in hexadecimal."""

    @property
    def trace_id(self) -> str: ...

    def end(self, outcome: Outcome) -> None: ...


class Tracer(Protocol):
    def begin(self, name: str, metadata: Metadata, at_nanoseconds: int) -> Span:
        """Of a call with such metadata. at_nanoseconds: since 1970."""

    def start(self) -> None: ...

    async def stop(self, seconds: float) -> None:
        """Send what was not sent yet, for at most so long."""


class RequestWatch:
    """tracer: where spans go; None for nowhere. logs_requests, logs_texts: a line for each, and
    the text in it."""

    def __init__(self, tracer: Tracer | None, logs_requests: bool, logs_texts: bool) -> None:
        self.tracer = tracer
        self.logs_requests = logs_requests
        self.logs_texts = logs_texts

    @property
    def is_curious(self) -> bool:
        """Whether anything is to be known of a request beside its ids."""
        return self.tracer is not None or self.logs_requests

    def start(self) -> None:
        if self.tracer:
            self.tracer.start()

    async def stop(self, seconds: float) -> None:
        """seconds: that sending the last spans may take."""
        if self.tracer:
            await self.tracer.stop(seconds)

    def open(self, context: grpc.aio.ServicerContext) -> None:
        request_id, trace_id = _given(context.invocation_metadata() or ())
        request_id = request_id or _new_id()
        IDS.set(Ids(request_id, trace_id))
        context.set_trailing_metadata(((REQUEST_ID, request_id),))

    def begin(self, method: str, context: grpc.aio.ServicerContext) -> RequestObservation:
        return _Request(self, method, context)


class _Request:
    def __init__(self, watch: RequestWatch, method: str, context: grpc.aio.ServicerContext) -> None:
        self._watch, self._method, self._context = watch, method, context
        metadata = context.invocation_metadata() or ()
        self._given_id, trace_id = _given(metadata)
        self._timeline: Timeline | None = None
        self._span: Span | None = None
        if watch.is_curious:
            self._began, self._began_ns = time.monotonic(), time.time_ns()
            self._timeline = Timeline()
            if watch.tracer:
                name = f"{SERVICES[method]}/{method}"
                self._span = watch.tracer.begin(name, metadata, self._began_ns)
                trace_id = self._span.trace_id
        TIMELINE.set(self._timeline)
        call = IDS.get() if method == STREAM_INFER else None  # as open() has told it
        self._ids = Ids(self._given_id or (call.request if call else _new_id()), trace_id)
        IDS.set(self._ids)

    def request_read(self, request: Any) -> None:
        if not isinstance(request, grpc_service_pb2.ModelInferRequest):
            return
        own, given = request.id, self._given_id
        if _USABLE_ID.fullmatch(own) and not (given and self._method != STREAM_INFER):
            self._ids = Ids(f"{given}/{own}" if given else own, self._ids.trace)
            IDS.set(self._ids)

    def end(
        self, request: Any, model: str, code: grpc.StatusCode, failure: RequestError | None
    ) -> None:
        if self._method != STREAM_INFER:  # there it is the call's, and responses bring their own
            self._context.set_trailing_metadata(((REQUEST_ID, self._ids.request),))
        if self._timeline is None:
            return
        outcome = Outcome(
            self._ids,
            self._method,
            model,
            code,
            type(failure).__name__ if failure else "",
            CALLER.get().name,
            self._began,
            self._began_ns,
            time.monotonic(),
            self._timeline,
        )
        if self._watch.logs_requests and log.isEnabledFor(logging.INFO):
            self._log(request, outcome, failure)
        if self._span:
            self._span.end(outcome)

    def _log(self, request: Any, outcome: Outcome, failure: RequestError | None) -> None:
        fields = {
            "method": outcome.method,
            "model": outcome.model,
            "code": outcome.code.name,
            "seconds": round(outcome.ended - outcome.began, 6),
            **outcome.figures,
            "peer": unquote(self._context.peer()),
            "caller": outcome.caller,
            "error": outcome.error,
        }
        if self._watch.logs_texts:
            # What a caller is told quotes what it sent.
            fields |= {"told": str(failure or ""), "text": _text_of(request)}
        known = {name: value for name, value in fields.items() if value != ""}
        log.info("request", extra={"fields": known})


def watch_of(config: Config) -> RequestWatch:
    """Raises ConfigInvalid for an endpoint that is none."""
    tracer: Tracer | None = None
    if config.trace_endpoint:
        # Imported late: without tracing nothing of OpenTelemetry is.
        from service.observability.tracing import Tracing

        tracer = Tracing(config.trace_endpoint, config.trace_share)
    return RequestWatch(tracer, config.log_requests, config.log_texts)


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


def _between(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(second - first, 6)


def _text_of(request: Any) -> str:
    """Without a resume token. Empty for a stream of requests, which are gone when it ends."""
    if not isinstance(request, Message):
        return ""
    if isinstance(request, unroll_pb2.GenerateRequest) and request.resume_token:
        # Whoever reads it could go on with the stream.
        sent, request = request, unroll_pb2.GenerateRequest()
        request.CopyFrom(sent)
        request.resume_token = b"..."
    if (size := request.ByteSize()) > _MOST_TEXT_BYTES:
        return f"({size} bytes)"
    text: str = MessageToString(request, as_one_line=True, as_utf8=True)
    return text
