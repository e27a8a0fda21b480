import asyncio
import dataclasses

import grpc
import pytest
from prometheus_client import CollectorRegistry

from service.engine import errors
from service.engine.requests import FinishReason
from service.engine.slots import HostStateStore
from service.observability.engine_metrics import BatchMetrics, GenerateMetrics
from service.observability.metrics import Metrics, reason_of
from service.observability.prom_types import CountedHistogram, LoopLag
from service.process.memory import memory_limit
from service.refused_model import RefusedModel
from service.serving.model_version import ServedVersion
from service.serving.statistics import CallTimes, Duration, ModelStatistics
from tests.service.engine.fakes import HIDDEN, MEMORY, card
from unroll.v1 import unroll_pb2 as pb
from unroll.v1.unroll_pb2_grpc import UnrollServiceStub


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_what_is_no_longer_served_has_no_value(metrics):
    first, second = card("mood", "classify"), card("mood", "classify", version="2")
    labels = {"model": "mood", "precision": "fp32", "provider": "none"}
    metrics.report_models([first, second], [RefusedModel("tags", "1", "spoiled")])
    assert value(metrics, "unroll_model_loaded", version="1", **labels) == 1
    assert value(metrics, "unroll_model_refused", model="tags", version="1") == 1
    metrics.report_models([second], [])
    assert value(metrics, "unroll_model_loaded", version="1", **labels) is None
    assert value(metrics, "unroll_model_loaded", version="2", **labels) == 1
    assert value(metrics, "unroll_model_refused", model="tags", version="1") is None
    metrics.report_models([first, second], [])
    assert value(metrics, "unroll_model_loaded", version="1", **labels) == 1


def test_rows_and_waits_of_versions_side_by_side_are_summed(metrics):
    old, new = (GenerateMetrics(metrics, "letters", ModelStatistics(), 8) for _ in range(2))
    for _ in range(16):
        old.stepped(3, 1, 0, 0.001, 0.0)
        new.stepped(2, 0, 0, 0.001, 0.0)
    old.paused(4)
    new.paused(1)
    names = ("unroll_active_rows", "unroll_waiting_requests", "unroll_paused_streams")
    assert [value(metrics, name, model="letters") for name in names] == [5, 1, 5]
    old.paused(0)
    old.idle()
    assert [value(metrics, name, model="letters") for name in names] == [2, 0, 1]


def test_steps_reach_both_counters_sixteen_at_a_time_and_when_nothing_runs(metrics):
    statistics = ModelStatistics()
    reported = GenerateMetrics(metrics, "letters", statistics, 8)
    for _ in range(15):
        reported.stepped(2, 0, 0, 0.5, 0.0)
    assert statistics.snapshot().execution_count == 0
    reported.stepped(0, 0, 7, 0.25, 0.25)
    assert statistics.snapshot().batches == {2: Duration(15, 7_500_000_000)}
    reported.stepped(1, 0, 0, 0.5, 0.0)
    reported.idle()
    assert statistics.snapshot().execution_count == 16
    assert value(metrics, "unroll_batch_rows_count", model="letters", graph="step") == 16
    assert value(metrics, "unroll_primed_tokens_total", model="letters") == 7


def test_batches_reach_both_counters_and_answers_the_metrics_alone(metrics):
    """A call's statistics are counted when it ends, not when an engine has answered it."""
    statistics = ModelStatistics()
    batches = BatchMetrics(metrics, "mood", "predict", statistics, 32)
    steps = GenerateMetrics(metrics, "mood", statistics, 8)
    batches.batch_ran(3, 12, 0.25)
    batches.answered(0.5, 0.25)
    steps.answered(1.5, 0.75)
    steps.finished(FinishReason.READ, 3, 0)
    seen = statistics.snapshot()
    assert seen.batches == {3: Duration(1, 250_000_000)}
    assert seen.queue == seen.compute_infer == Duration(0, 0)
    assert value(metrics, "unroll_batch_rows_sum", model="mood", graph="predict") == 3
    assert value(metrics, "unroll_compute_seconds_sum", model="mood") == 1.0


def test_prefill_is_kept_apart_from_decoding(metrics):
    """A step's time is that of its prefill and that of its decoding."""
    reported = GenerateMetrics(metrics, "letters", ModelStatistics(), 8)
    reported.stepped(2, 0, 5, 0.75, 0.5)
    reported.stepped(2, 0, 0, 0.25, 0.0)
    reported.stepped(0, 0, 3, 0.5, 0.5)
    reported.idle()
    names = ("prime_seconds_count", "prime_seconds_sum", "primed_tokens_total")
    seen = [value(metrics, f"unroll_{name}", model="letters") for name in names]
    assert seen == [2, 1.0, 8]
    names = ("decode_seconds_count", "decode_seconds_sum")
    seen = [value(metrics, f"unroll_{name}", model="letters") for name in names]
    assert seen == [2, 0.5]
    assert value(metrics, "unroll_batch_seconds_sum", model="letters", graph="step") == 1.0
    assert value(metrics, "unroll_batch_capacity", model="letters", graph="step") == 8


def test_streams_that_go_on_are_counted(metrics):
    reported = GenerateMetrics(metrics, "letters", ModelStatistics(), 8)
    reported.began(0.0, False)
    reported.began(0.0, True)
    assert value(metrics, "unroll_streams_resumed_total", model="letters") == 1
    assert value(metrics, "unroll_queue_seconds_count", model="letters") == 2


@pytest.mark.parametrize(
    ("code", "failure", "name", "reason"),
    [
        ("RESOURCE_EXHAUSTED", errors.QueueFull("", 0.5), "rejected", "queue_full"),
        ("UNAVAILABLE", errors.ServiceStopping(""), "rejected", "stopping"),
        ("INVALID_ARGUMENT", errors.WrongInput(""), "rejected", "invalid"),
        ("NOT_FOUND", errors.ModelNotFound(""), "rejected", "not_found"),
        ("FAILED_PRECONDITION", errors.ResumeRefused(""), "rejected", "resume_refused"),
        ("ABORTED", errors.ReaderStalled(""), "cancelled", "reader_stalled"),
        ("DEADLINE_EXCEEDED", errors.TimedOut(""), "cancelled", "deadline"),
        ("DEADLINE_EXCEEDED", None, "cancelled", "deadline"),
        ("CANCELLED", None, "cancelled", "caller_left"),
    ],
)
def test_a_request_that_was_not_answered_counts_by_its_reason(metrics, code, failure, name, reason):
    metrics.request_ended("mood", "Classify", code, 0.25, failure)
    others = {"rejected": "cancelled", "cancelled": "rejected"}
    assert value(metrics, f"unroll_{name}_total", model="mood", reason=reason) == 1
    assert value(metrics, f"unroll_{others[name]}_total", model="mood", reason=reason) is None
    labels = {"model": "mood", "method": "Classify"}
    assert value(metrics, "unroll_requests_total", code=code, **labels) == 1
    assert value(metrics, "unroll_request_seconds_sum", **labels) == 0.25


def test_answers_and_failures_of_the_server_are_no_refusals(metrics):
    metrics.request_ended("mood", "Classify", "OK", 0.25, None)
    metrics.request_ended("mood", "Classify", "INTERNAL", 0.25, errors.EngineFailed(""))
    samples = {s.name: s for family in metrics.registry.collect() for s in family.samples}
    assert "unroll_rejected_total" not in samples
    assert "unroll_cancelled_total" not in samples


def test_every_error_has_a_reason_of_its_own():
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    reasons = [
        reason_of("", k("", 0.5) if issubclass(k, errors.TryLater) else k("")) for k in kinds
    ]
    assert len(set(reasons)) == len(kinds) > 10
    assert all(reason.replace("_", "").islower() for reason in reasons)


def test_a_version_has_the_states_that_it_is_in(metrics):
    def states():
        (family,) = (f for f in metrics.registry.collect() if f.name == "unroll_model_state")
        return {tuple(sample.labels.values()) for sample in family.samples}

    first, second = card("mood", "classify"), card("mood", "classify", version="2")
    metrics.report_models([first], [RefusedModel("tags", "3", "spoiled")])
    assert states() == {("mood", "1", "loaded"), ("tags", "3", "refused")}
    metrics.report_loading("mood", [2])
    assert ("mood", "2", "loading") in states()
    metrics.report_loading("mood", ())
    metrics.report_models([second], [], failed=[("mood", "2")])
    assert states() == {("mood", "2", "failed")}
    metrics.report_models([], [])
    assert states() == {("mood", "2", "unloaded")}


def test_rows_and_their_memory_are_those_of_what_is_served(metrics):
    """The bytes are those that an engine takes for as many rows."""
    state = (HIDDEN, MEMORY)
    both = [dataclasses.replace(card("letters", "generate", version=v), state=state) for v in "12"]
    metrics.report_models([*both, card("mood", "classify")], [], rows=8)
    assert value(metrics, "unroll_row_capacity", model="letters") == 16
    assert value(metrics, "unroll_row_capacity", model="mood") is None
    held = sum(rows.nbytes for rows in HostStateStore(state, 8)._everything())
    assert value(metrics, "unroll_model_state_bytes", model="letters", version="1") == held
    metrics.report_models(both[1:], [], rows=8)
    assert value(metrics, "unroll_row_capacity", model="letters") == 8


class Thread:
    """What is read of an engine's thread."""

    class coalescer:
        tokens_per_message = 3

    purpose, failure = "generate", None
    open_work, limit, messages, message_tokens = 5, 12, 4, 10
    given_up, too_late = 2, 7


def test_what_is_served_is_read_at_the_scrape(metrics):
    served = [
        ServedVersion(card("letters", "generate", version=v), threads=[Thread()]) for v in "12"
    ]
    for version in served:
        version.model = type("Model", (), {"card": version.model})
    metrics.served.show(served)
    served[0].statistics.succeeded(0.5, 3, CallTimes(queue=0.0625, compute_infer=0.125))
    served[0].statistics.failed(0.25)
    served[0].statistics.executed([(4, 0.125)])
    of = {"model": "letters", "version": "1"}
    assert value(metrics, "unroll_model_calls_total", outcome="success", **of) == 1
    assert value(metrics, "unroll_model_calls_total", outcome="fail", **of) == 1
    assert value(metrics, "unroll_model_inferences_total", **of) == 3
    assert value(metrics, "unroll_model_executions_total", **of) == 1
    assert value(metrics, "unroll_model_phase_seconds_total", phase="queue", **of) == 0.0625
    assert value(metrics, "unroll_message_tokens_count", **of) == 4
    assert value(metrics, "unroll_message_tokens_sum", **of) == 10
    assert value(metrics, "unroll_unread_streams_given_up_total", **of) == 2
    assert value(metrics, "unroll_deadline_refusals_total", **of) == 7
    engine = {"model": "letters", "engine": "generate"}
    assert value(metrics, "unroll_engine_work", **engine) == 10
    assert value(metrics, "unroll_engine_work_limit", **engine) == 24
    assert value(metrics, "unroll_engine_tokens_per_message", **engine) == 3
    metrics.served.show(served[1:])
    assert value(metrics, "unroll_model_inferences_total", **of) is None


def test_a_histogram_takes_many_observations_at_once():
    registry = CollectorRegistry()
    histogram = CountedHistogram("size", "Of things.", ["kind"], registry, (1, 2))
    histogram.labels("a").observe_all([0.5, 1, 1.5, 9])
    histogram.labels("a").observe(2, 3)
    seen = [
        registry.get_sample_value("size_bucket", {"kind": "a", "le": edge})
        for edge in ("1.0", "2.0", "+Inf")
    ]
    assert seen == [2, 6, 7]
    assert registry.get_sample_value("size_sum", {"kind": "a"}) == 18


def test_an_event_loop_that_is_held_up_is_seen():
    seen = []

    async def run():
        lag = LoopLag(seen.append, every_seconds=0.01)
        lag.start()
        while not seen:
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.05
        while loop.time() < until:
            pass
        before = len(seen)
        while len(seen) == before:
            await asyncio.sleep(0)
        lag.stop()
        stopped = len(seen)
        await asyncio.sleep(0.03)
        return stopped

    assert asyncio.run(run()) == len(seen)
    assert max(seen) > 0.03


@pytest.mark.parametrize("place", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_of_memory_is_the_cgroups_where_it_has_one(tmp_path, place):
    machine = memory_limit(tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / place).write_text("536870912\n")
    assert memory_limit(tmp_path) == 536870912 < machine
    (tmp_path / place).write_text("max\n")
    assert memory_limit(tmp_path) == machine
    (tmp_path / place).write_text(f"{2**63}\n")
    assert memory_limit(tmp_path) == machine


def test_a_running_service_says_what_it_is(start_service):
    service = start_service(max_streams=4)
    stub = UnrollServiceStub(grpc.insecure_channel(service.target))
    list(stub.Generate(pb.GenerateRequest(model="letters", prompt="ab", max_tokens=5)))
    with pytest.raises(grpc.RpcError):
        stub.Classify(pb.ClassifyRequest(model="mood"))
    assert service.metric("unroll_ready") == 1
    assert service.metric("unroll_rejected_total", model="mood", reason="invalid") == 1
    seconds = "unroll_request_seconds_count"
    assert service.metric(seconds, model="letters", method="Generate") == 1
    assert service.metric("unroll_row_capacity", model="letters") == 4
    assert service.metric("unroll_engine_work_limit", model="letters", engine="generate") > 4
    assert service.metric("unroll_open_requests") == 0
    assert service.metric("unroll_model_load_seconds_sum", model="letters") > 0
    assert service.metric("unroll_memory_limit_bytes") > 0
    assert service.metric("process_resident_memory_bytes") > 0
    of = {"model": "letters", "version": "1"}
    assert service.metric("unroll_message_tokens_sum", **of) == 5
    assert service.metric("unroll_model_state", state="loaded", **of) == 1
    assert service.metric("unroll_model_bundle_bytes", **of) > 0
    built = [f for f in service.app.metrics.registry.collect() if f.name == "unroll_build_info"]
    (sample,) = built[0].samples
    assert sample.labels["device"] == "cpu"
    service.run(service.app.announce())
    assert service.metric("unroll_ready") == 0
