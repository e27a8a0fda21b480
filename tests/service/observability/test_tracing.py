"""Spans of requests, as a collector gets them over OTLP."""

import logging
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from service.config import ConfigInvalid
from service.observability.tracing import SeldomLog, Tracing
from tests.service.oip.calls import ask
from unroll import Client
from unroll.inference import grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01")
NOT_SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-00")
CLASSIFY = pb.ClassifyRequest(model="mood", texts=["good food"])
GENERATE = pb.GenerateRequest(model="letters", prompt="abcabcabc", max_tokens=5)


class Collector(otlp_grpc.TraceServiceServicer):
    """Takes spans on a port of its own. holds_up: leaves who sends some without an answer."""

    def __init__(self, port=0, holds_up=False):
        self.spans, self.resources = [], []
        self.holds_up = holds_up
        self._ended = threading.Event()
        self._came = threading.Condition()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)]
        )
        otlp_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.port}"

    def Export(self, request, context):
        if self.holds_up:
            self._ended.wait(20)
        with self._came:
            for of_resource in request.resource_spans:
                self.resources.append(of_resource.resource)
                for of_scope in of_resource.scope_spans:
                    self.spans += of_scope.spans
            self._came.notify_all()
        return otlp.ExportTraceServiceResponse()

    def wait_for(self, count):
        with self._came:
            assert self._came.wait_for(lambda: len(self.spans) >= count, 20), len(self.spans)
            return self.spans

    def stop(self):
        self._ended.set()
        self._server.stop(None).wait()


@pytest.fixture(autouse=True)
def spans_are_sent_soon(monkeypatch):
    monkeypatch.setattr("service.observability.tracing._PAUSE_SECONDS", 0.05)


@pytest.fixture
def collect():
    started = []

    def start(**options):
        started.append(Collector(**options))
        return started[-1]

    yield start
    for collector in started:
        collector.stop()


@pytest.fixture
def traced(start_service):
    """Starts a service and returns it with stubs of both its services."""
    channels = []

    def start(endpoint, share=1.0, **settings):
        service = start_service(trace_endpoint=endpoint, trace_share=share, **settings)
        channels.append(grpc.insecure_channel(service.target))
        stubs = (unroll_pb2_grpc.UnrollServiceStub, grpc_service_pb2_grpc.GRPCInferenceServiceStub)
        return service, *(stub(channels[-1]) for stub in stubs)

    yield start
    for channel in channels:
        channel.close()


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def attributes(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def events(span):
    return {event.name: event.time_unix_nano for event in span.events}


def test_a_stream_is_told_moment_by_moment(traced, collect):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint)
    before = time.time_ns()
    list(unroll.Generate(GENERATE, metadata=(("x-request-id", "edge-7"),)))
    after = time.time_ns()
    service.stop()
    (span,) = collector.spans
    told = events(span)
    names = ["received", "queued", "started", "primed", "first_token", "finished"]
    assert list(told) == names
    moments = [span.start_time_unix_nano, *told.values(), span.end_time_unix_nano]
    assert moments == sorted(moments)
    assert before <= moments[0]
    assert moments[-1] <= after
    assert span.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert span.name == "unroll.v1.UnrollService/Generate"
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    known = attributes(span)
    waited = known.pop("unroll.queue_seconds")
    assert waited == pytest.approx((told["started"] - told["queued"]) / 1e9, abs=2e-6)
    first = known.pop("unroll.first_token_seconds")
    assert first == pytest.approx((told["first_token"] - told["queued"]) / 1e9, abs=2e-6)
    assert known == {
        "rpc.system": "grpc", "rpc.system.name": "grpc", "rpc.method": "Generate",
        "rpc.service": "unroll.v1.UnrollService", "rpc.grpc.status_code": 0,
        "rpc.response.status_code": "OK", "unroll.request_id": "edge-7", "unroll.model": "letters",
        "unroll.input_tokens": 9, "unroll.output_tokens": 5, "unroll.finish_reason": "length",
    }  # fmt: skip
    resource = attributes(collector.resources[0])
    assert resource["service.name"] == "unroll"


def test_whole_texts_wait_and_finish(traced, collect):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint)
    unroll.Classify(CLASSIFY)
    unroll.ListModels(pb.ListModelsRequest())
    service.stop()
    classify, listing = collector.spans
    told = events(classify)
    assert list(told) == ["received", "queued", "started", "finished"]
    assert list(told.values()) == sorted(told.values())
    assert attributes(classify)["unroll.input_tokens"] == 2
    assert list(events(listing)) == ["received"]


def test_what_waits_for_a_row_is_told_apart_from_what_is_primed(traced, collect):
    """One row: the second stream waits until the first has left it.

    Its 400 tokens come in two messages, so that its reader is never so far behind that it gives
    the row up before it ends.
    """
    collector = collect()
    service, unroll, _ = traced(collector.endpoint, max_streams=1)
    long = pb.GenerateRequest(model="letters", prompt="ab", max_tokens=400, tokens_per_message=200)
    for _ in range(5):
        first = unroll.Generate(long)
        next(first)
        second = unroll.Generate(GENERATE)
        list(second)
        list(first)
    service.stop()
    told = sorted(map(events, collector.spans), key=lambda told: told["queued"])
    pairs = list(zip(told[::2], told[1::2], strict=True))
    assert len(pairs) == 5
    for leading, waiting in pairs:
        assert leading["primed"] < waiting["queued"]
        assert leading["finished"] <= waiting["primed"]
    assert any(waiting["queued"] < leading["finished"] for leading, waiting in pairs)


def test_the_callers_trace_is_the_parent(traced, collect):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint, share=0.0)
    unroll.Classify(CLASSIFY, metadata=(SAMPLED, ("tracestate", "vendor=1,other=2")))
    service.stop()
    (span,) = collector.spans
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    assert span.trace_state == "vendor=1,other=2"


@pytest.mark.parametrize("header", [(), (("traceparent", "00-nonsense"),)])
def test_without_one_a_trace_begins_here(traced, collect, header):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint)
    unroll.Classify(CLASSIFY, metadata=header)
    service.stop()
    (span,) = collector.spans
    assert not span.parent_span_id
    assert any(span.trace_id)


def test_what_the_caller_says_of_tracing_goes_before_the_share(traced, collect):
    collector = collect()
    all_of_them, unroll, _ = traced(collector.endpoint, share=1.0)
    unroll.Classify(CLASSIFY, metadata=(NOT_SAMPLED,))
    all_of_them.stop()
    none_of_them, unroll, _ = traced(collector.endpoint, share=0.0)
    unroll.Classify(CLASSIFY)
    none_of_them.stop()
    assert not collector.spans


def test_a_share_is_of_traces_that_begin_here(traced, collect):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint, share=0.5)
    for _ in range(100):
        unroll.ListModels(pb.ListModelsRequest())
    service.stop()
    assert 20 < len(collector.spans) < 80  # outside once in a thousand million runs


def test_each_request_of_a_stream_has_a_span(traced, collect):
    collector = collect()
    service, _, inference = traced(collector.endpoint)
    requests = [ask("mood", {"text": [["good"]]}, id=str(number)) for number in range(3)]
    list(inference.ModelStreamInfer(iter(requests), metadata=(SAMPLED,)))
    service.stop()
    assert {span.parent_span_id.hex() for span in collector.spans} == {PARENT}
    assert {attributes(span)["unroll.request_id"] for span in collector.spans} == set("012")


def test_a_stream_of_tags_is_told_once(traced, collect):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint)
    start = pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online"))
    list(unroll.StreamTag(iter([start, *[pb.StreamTagRequest(text="the food ")] * 3])))
    service.stop()
    (span,) = collector.spans
    told = list(events(span).values())
    assert told == sorted(told)
    assert len(told) == 6
    assert attributes(span)["unroll.input_tokens"] == 6


def test_errors_are_told_by_status_and_kind(traced, collect, monkeypatch):
    collector = collect()
    service, unroll, _ = traced(collector.endpoint)
    for wrong in (CLASSIFY, pb.ClassifyRequest(model="secret", texts=["secret"])):
        if wrong is CLASSIFY:
            monkeypatch.setattr(service.app.catalogue, "call", lambda *_: 1 / 0)
        with pytest.raises(grpc.RpcError):
            unroll.Classify(wrong)
        monkeypatch.undo()
    service.stop()
    broken, refused = collector.spans
    assert broken.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert attributes(broken)["error.type"] == "EngineFailed"
    assert attributes(broken)["rpc.grpc.status_code"] == 13
    # The caller's fault, not the server's.
    assert refused.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert attributes(refused)["error.type"] == "ModelNotFound"
    assert attributes(refused)["rpc.response.status_code"] == "NOT_FOUND"
    assert "secret" not in str(refused)


def test_a_caller_that_leaves_is_told(traced, collect):
    collector = collect()
    _, unroll, _ = traced(collector.endpoint)
    call = unroll.Generate(pb.GenerateRequest(model="letters", prompt="a", max_tokens=400))
    next(call)
    call.cancel()
    (span,) = collector.wait_for(1)
    assert attributes(span)["rpc.response.status_code"] == "CANCELLED"
    assert list(events(span)) == ["received", "queued", "started", "primed", "first_token"]


# -- a collector that is away ------------------------------------------------------------------


def test_a_collector_that_comes_later_gets_what_waits_for_it(traced, collect, free_port):
    service, unroll, _ = traced(f"127.0.0.1:{free_port}")
    for _ in range(20):
        unroll.Classify(CLASSIFY, timeout=5)
    collector = collect(port=free_port)
    unroll.Classify(CLASSIFY, timeout=5)
    collector.wait_for(1)
    service.stop()


def test_a_collector_that_dies_midway_costs_no_request(traced, collect, free_port):
    first = collect(port=free_port)
    service, unroll, _ = traced(first.endpoint)
    unroll.Classify(CLASSIFY)
    first.wait_for(1)
    first.stop()
    with Client(service.target, timeout=20) as client:
        for _ in range(20):
            assert client.classify("mood", ["good"])
            assert len(list(client.generate("letters", prompt="a", max_tokens=3)))
    second = collect(port=free_port)
    unroll.Classify(CLASSIFY)
    second.wait_for(1)
    service.stop()


@pytest.mark.parametrize("is_there", [False, True])
def test_the_end_does_not_wait_for_a_collector(traced, collect, free_port, is_there):
    """Neither for one that is away nor for one that takes spans and never answers."""
    endpoint = collect(holds_up=True).endpoint if is_there else f"127.0.0.1:{free_port}"
    service, unroll, _ = traced(endpoint)
    unroll.Classify(CLASSIFY)
    began = time.monotonic()
    assert service.stop()
    assert time.monotonic() - began < 4


def test_more_spans_than_can_wait_are_dropped(traced, free_port, monkeypatch):
    monkeypatch.setattr("service.observability.tracing._MOST_WAITING", 8)
    monkeypatch.setattr("service.observability.tracing._BATCH", 8)
    monkeypatch.setattr("service.app._TRACE_SECONDS", 0.1)
    service, unroll, _ = traced(f"127.0.0.1:{free_port}")
    for _ in range(50):
        unroll.ListModels(pb.ListModelsRequest(), timeout=5)
    queue = service.app._observer.tracing._processor._batch_processor._queue
    assert len(queue) <= 8
    service.stop()


def test_a_dead_collector_is_told_of_once_a_minute(caplog):
    now = 100.0
    source, target = logging.getLogger("opentelemetry.test"), logging.getLogger("service.test")
    seldom = SeldomLog(source, target, quiet_seconds=60.0, clock=lambda: now)
    for now in (100.0, 101.0, 159.0, 160.0, 161.0):
        source.error("no answer at %s", now)
    source.info("all is well")
    seldom.mute()
    source.error("no answer at the end")
    told = [record.getMessage() for record in caplog.records if record.name == "service.test"]
    assert ["at 100.0 (" in told[0], "at 160.0 (" in told[1], len(told)] == [True, True, 2]


def test_a_dead_collector_is_named_in_the_log(traced, free_port, caplog, monkeypatch):
    monkeypatch.setattr("service.app._TRACE_SECONDS", 0.7)
    service, unroll, _ = traced(f"127.0.0.1:{free_port}")
    unroll.Classify(CLASSIFY)
    service.stop()
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == "service.observability.tracing"
    ]
    assert len(told) == 2  # that it does not answer, and that spans were left at the end
    assert all(f"127.0.0.1:{free_port}" in line for line in told)


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["collector", "ftp://collector:4317", "a b:1", "host:x"])
def test_an_endpoint_that_is_none_stops_the_start(start_service, endpoint):
    with pytest.raises(ConfigInvalid, match="trace_endpoint"):
        start_service(trace_endpoint=endpoint)


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "http://[::1]:4317", "https://otel.example:4317/"]
)
def test_an_endpoint_is_an_address_or_a_url(endpoint):
    assert Tracing(endpoint, 1.0)


def test_nothing_of_opentelemetry_is_loaded_while_tracing_is_off():
    program = (
        "import sys, service.app, service.observability.request_log\n"
        "from service.config import Config\n"
        "service.app.observer_of(Config(log_requests=True))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"
