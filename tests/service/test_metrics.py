import pytest
from prometheus_client import CollectorRegistry

from service.engine.catalogue import RefusedModel
from service.engine.requests import FinishReason
from service.engine.statistics import Duration, ModelStatistics
from service.metrics import BatchMetrics, GenerateMetrics, Metrics
from tests.service.engine.fakes import card


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_what_is_no_longer_served_has_no_value(metrics):
    first, second = card("mood", "classify"), card("mood", "classify", version="2")
    labels = {"model": "mood", "precision": "fp32", "provider": "none"}
    metrics.tell_models([first, second], [RefusedModel("tags", "1", "spoiled")])
    assert value(metrics, "unroll_model_loaded", version="1", **labels) == 1
    assert value(metrics, "unroll_model_refused", model="tags", version="1") == 1
    metrics.tell_models([second], [])
    assert value(metrics, "unroll_model_loaded", version="1", **labels) is None
    assert value(metrics, "unroll_model_loaded", version="2", **labels) == 1
    assert value(metrics, "unroll_model_refused", model="tags", version="1") is None
    metrics.tell_models([first, second], [])
    assert value(metrics, "unroll_model_loaded", version="1", **labels) == 1


def test_rows_and_waits_of_versions_side_by_side_are_summed(metrics):
    old, new = (GenerateMetrics(metrics, "letters", ModelStatistics()) for _ in range(2))
    for _ in range(16):
        old.stepped(3, 1, 0, 0.001)
        new.stepped(2, 0, 0, 0.001)
    old.paused(4)
    new.paused(1)
    names = ("unroll_active_rows", "unroll_waiting_requests", "unroll_paused_streams")
    assert [value(metrics, name, model="letters") for name in names] == [5, 1, 5]
    old.paused(0)
    old.idle()
    assert [value(metrics, name, model="letters") for name in names] == [2, 0, 1]


def test_steps_are_told_to_both_sixteen_at_a_time_and_when_nothing_runs(metrics):
    statistics = ModelStatistics()
    told = GenerateMetrics(metrics, "letters", statistics)
    for _ in range(15):
        told.stepped(2, 0, 0, 0.5)
    assert statistics.snapshot().execution_count == 0
    told.stepped(0, 0, 7, 0.25)
    assert statistics.snapshot().batches == {2: Duration(15, 7_500_000_000)}
    told.stepped(1, 0, 0, 0.5)
    told.idle()
    assert statistics.snapshot().execution_count == 16
    assert value(metrics, "unroll_batch_rows_count", model="letters", graph="step") == 16
    assert value(metrics, "unroll_primed_tokens_total", model="letters") == 7


def test_batches_and_answers_are_told_to_both(metrics):
    statistics = ModelStatistics()
    batches = BatchMetrics(metrics, "mood", "predict", statistics)
    steps = GenerateMetrics(metrics, "mood", statistics)
    batches.batch_ran(3, 12, 0.25)
    batches.answered(0.5, 0.25)
    steps.answered(1.5, 0.75)
    steps.finished(FinishReason.READ, 3, 0)
    seen = statistics.snapshot()
    assert seen.batches == {3: Duration(1, 250_000_000)}
    assert (seen.queue, seen.compute_infer) == (Duration(2, 2 * 10**9), Duration(2, 10**9))
    assert value(metrics, "unroll_batch_rows_sum", model="mood", graph="predict") == 3
