"""Spans of requests for an OTLP collector; the only module that imports OpenTelemetry.

A collector that is away costs spans, never a request: they wait in a bounded queue and are sent
by a thread of their own. OpenTelemetry's variables of the environment add what is not set here,
such as headers and the authority of a collector that is called with TLS.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import service
from service.access.codes import Code
from service.access.identity import Metadata
from service.config import ConfigInvalid
from service.observability.outcome import Outcome

log = logging.getLogger(__name__)

_ENDPOINT = re.compile(r"(https?://)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}/?")
# Spans that wait to be sent, and that go at once; seconds between two batches, and for one.
_MOST_WAITING = 2048
_BATCH = 128
_PAUSE_SECONDS = 1.0
_SEND_SECONDS = 5.0
# Between two lines about a collector that does not answer.
_QUIET_SECONDS = 60.0

# Failures of the server, as the semantic conventions have them; others are their callers'.
_FAULTS = frozenset({
    Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE,
    Code.DATA_LOSS,
})  # fmt: skip
# Events of a span by the moments they are of.
_MOMENTS = {
    "queued": "queued",
    "started": "started",
    "primed": "prefilled",
    "first_token": "first_token",
    "finished": "finished",
}


class Tracing:
    """endpoint: HOST:PORT without TLS, or a URL. share: of the traces that begin here. worker: of
    which processes this one is; None for the only one.

    Raises ConfigInvalid.
    """

    def __init__(self, endpoint: str, share: float, worker: int | None = None) -> None:
        if not _ENDPOINT.fullmatch(endpoint):
            raise ConfigInvalid(
                f"trace_endpoint is {endpoint!r}; write HOST:PORT, http://HOST:PORT or "
                "https://HOST:PORT"
            )
        self._endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
        self._share = share
        self._worker = worker
        self._context = TraceContextTextMapPropagator()

    def start(self) -> None:
        self._sdk_log = SeldomLog(logging.getLogger("opentelemetry"), log)
        self._exporter = OTLPSpanExporter(self._endpoint, timeout=_SEND_SECONDS)
        self._processor = BatchSpanProcessor(
            self._exporter, _MOST_WAITING, _PAUSE_SECONDS * 1e3, _BATCH
        )
        provider = TracerProvider(
            ParentBased(TraceIdRatioBased(self._share)),
            _resource(self._worker),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("unroll", service.__version__)

    def begin(self, name: str, metadata: Metadata, at_nanoseconds: int) -> RequestSpan:
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        parent = self._context.extract(carrier, trace.Context())
        return RequestSpan(
            self._tracer.start_span(name, parent, trace.SpanKind.SERVER, start_time=at_nanoseconds)
        )

    async def stop(self, seconds: float) -> None:
        """Send what was not sent yet, for at most so long."""
        closed = threading.Thread(target=self._processor.shutdown, name="spans", daemon=True)
        closed.start()
        end = time.monotonic() + seconds
        while closed.is_alive() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._sdk_log.mute()
        if closed.is_alive():
            log.warning("not every span was sent to %s within %g s", self._endpoint, seconds)
            self._exporter.shutdown()  # it gives up what it is sending


class RequestSpan:
    """One request's; what it is of the request is set when that ends."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def end(self, outcome: Outcome) -> None:
        span = self._span
        if not span.is_recording():
            return
        span.set_attributes(_attributes(outcome))
        span.add_event("received", timestamp=outcome.began_ns)
        for name, moment_of in _MOMENTS.items():
            moment = getattr(outcome.timeline, moment_of)
            if moment is not None:
                span.add_event(name, timestamp=outcome.nanoseconds(moment))
        if outcome.code in _FAULTS:
            span.set_status(trace.StatusCode.ERROR, outcome.error or outcome.code.name)
        span.end(outcome.nanoseconds(outcome.ended))


def _attributes(outcome: Outcome) -> dict[str, str | int | float]:
    """By the conventions' present names and, as collectors know them better, their former ones."""
    code = outcome.code
    attributes = {
        "rpc.system": outcome.protocol,
        "rpc.system.name": outcome.protocol,
        "rpc.service": outcome.service,
        "rpc.method": outcome.method,
        "rpc.grpc.status_code": code.value,
        "rpc.response.status_code": code.name,
        "unroll.request_id": outcome.ids.request,
    }
    optional = {
        "unroll.model": outcome.model,
        "unroll.caller": outcome.caller,
        "error.type": outcome.error or (code.name if code is not Code.OK else ""),
    }
    figures = {f"unroll.{name}": value for name, value in outcome.figures.items()}
    return {**attributes, **{name: value for name, value in optional.items() if value}, **figures}


def _resource(worker: int | None) -> Resource:
    of_process = {} if worker is None else {"unroll.worker": worker}
    return Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "unroll"),
            "service.version": service.__version__,
            "service.instance.id": str(uuid.uuid4()),
            **of_process,
        }
    )


class SeldomLog(logging.Handler):
    """Passes on what a library logs about its failures, at most once a minute."""

    def __init__(
        self,
        source: logging.Logger,
        target: logging.Logger,
        quiet_seconds: float = _QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.WARNING)
        self._target = target
        self._quiet_seconds, self._clock = quiet_seconds, clock
        self._next = -float("inf")
        source.addHandler(self)
        source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._quiet_seconds
        self._target.warning(
            "sending spans: %s (further lines of this kind are left out for %g s)",
            record.getMessage(),
            self._quiet_seconds,
        )

    def mute(self) -> None:
        """Pass nothing on any more. It stays where it is: nobody else would take the lines."""
        self._next = float("inf")
