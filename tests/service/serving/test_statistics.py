import threading

import pytest

from service.engine.stopwatch import Stopwatch
from service.serving.statistics import CallTimes, Duration, ModelStatistics


def test_nothing_has_happened_at_first():
    seen = ModelStatistics().snapshot()
    assert seen.success == seen.fail == seen.queue == seen.compute_infer == Duration(0, 0)
    assert seen.compute_input == seen.compute_output == Duration(0, 0)
    assert (seen.inference_count, seen.execution_count, seen.last_inference_ms) == (0, 0, 0)
    assert seen.batches == {}


def test_calls_are_counted_by_their_outcome_and_inputs_by_their_success():
    statistics = ModelStatistics(lambda: 12.3456)
    times = CallTimes(queue=1.0, compute_input=0.5, compute_infer=2.0, compute_output=0.125)
    statistics.succeeded(0.25, inferences=3, times=times)
    statistics.succeeded(0.25, inferences=1)
    statistics.failed(2.0)
    seen = statistics.snapshot()
    assert seen.success == Duration(2, 500_000_000)
    assert seen.fail == Duration(1, 2_000_000_000)
    assert seen.inference_count == 4
    assert seen.queue == Duration(2, 10**9)
    assert seen.compute_input == Duration(2, 500_000_000)
    assert seen.compute_infer == Duration(2, 2 * 10**9)
    assert seen.compute_output == Duration(2, 125_000_000)
    assert seen.last_inference_ms == 12_346


def test_executions_are_counted_by_their_rows():
    statistics = ModelStatistics()
    statistics.executed([(2, 0.5), (1, 0.25)])
    statistics.executed([(2, 1.0)])
    seen = statistics.snapshot()
    assert seen.batches == {1: Duration(1, 250_000_000), 2: Duration(2, 1_500_000_000)}
    assert seen.execution_count == 3
    assert seen.compute_infer == Duration(0, 0), "of calls alone"


def test_a_snapshot_stays_as_it_is():
    statistics = ModelStatistics()
    before = statistics.snapshot()
    statistics.executed([(1, 1.0)])
    assert before.batches == {}


def test_threads_may_report_at_once():
    statistics = ModelStatistics()

    def report_one():
        for _ in range(2_000):
            statistics.executed([(3, 0.001)])
            statistics.succeeded(0.002, 3, CallTimes(compute_infer=0.001))

    threads = [threading.Thread(target=report_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = statistics.snapshot()
    assert (seen.batches[3].count, seen.compute_infer.count) == (8_000, 8_000)
    assert seen.compute_infer.nanoseconds == pytest.approx(8 * 10**9, rel=1e-6)


def test_a_stopwatch_adds_up_what_passes_while_it_runs():
    watch = Stopwatch()
    watch.stop(1.0)
    watch.start(2.0)
    watch.start(5.0)
    watch.stop(6.0)
    watch.start(10.0)
    watch.stop(10.5)
    assert (watch.seconds, watch.since) == (4.5, None)
