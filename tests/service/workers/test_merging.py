"""Metrics of several processes as one."""

import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.observability.metrics import Metrics
from service.workers import merging
from service.workers.merging import MergedMetrics, families_of


class Source:
    """A process with a counter, a histogram and a gauge."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["code"], registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", buckets=(1, 2), registry=self.registry)
        self.open = Gauge("open", "Open.", registry=self.registry)

    def families(self):
        """As they cross."""
        return json.loads(json.dumps(families_of(self.registry)))


@pytest.fixture
def sources():
    first, second = Source(), Source()
    first.calls.labels("OK").inc(3)
    second.calls.labels("OK").inc(4)
    second.calls.labels("LATE").inc()
    first.seconds.observe(0.5)
    second.seconds.observe(1.5)
    first.open.set(2)
    second.open.set(5)
    return first, second


@pytest.fixture
def page():
    registry, own = CollectorRegistry(), CollectorRegistry()
    made = MergedMetrics(registry, own)
    made.own = own
    made.text = lambda: generate_latest(registry).decode().splitlines()
    return made


def test_counts_and_gauges_are_summed(page, sources):
    for number, source in enumerate(sources):
        page.report(number, source.families())
    lines = page.text()
    for line in (
        'calls_total{code="OK"} 7.0', 'calls_total{code="LATE"} 1.0', "open 7.0",
        'seconds_bucket{le="1.0"} 1.0', 'seconds_bucket{le="2.0"} 2.0', "seconds_sum 2.0",
    ):  # fmt: skip
        assert line in lines
    assert lines.count("# TYPE open gauge") == 1


def test_counts_of_a_worker_that_ended_stay_and_its_gauges_go(page, sources):
    """A sum that fell would look like a restart of the whole service, and its rate like a burst."""
    for number, source in enumerate(sources):
        page.report(number, source.families())
    page.worker_ended(1)
    lines = page.text()
    assert 'calls_total{code="OK"} 7.0' in lines
    assert "open 2.0" in lines
    again = Source()
    again.calls.labels("OK").inc(10)
    page.report(1, again.families())
    assert 'calls_total{code="OK"} 17.0' in page.text()
    page.worker_ended(1)
    page.worker_ended(1)  # before it said anything
    assert 'calls_total{code="OK"} 17.0' in page.text()


def test_a_process_that_has_counted_nothing_adds_nothing(page, sources):
    page.report(0, sources[0].families())
    page.report(1, Source().families())
    assert 'calls_total{code="OK"} 3.0' in page.text()


@pytest.mark.parametrize(
    ("names", "combined"),
    [(merging._MOST, 1.0), (merging._LEAST, 0.0), (merging._PARENTS, 0.5)],
)
def test_facts_are_not_summed(names, combined):
    for name in names:
        own, others = (
            [(name, "gauge", "", [(name, {}, 0.5)])],
            [[(name, "gauge", "", [(name, {}, value)])] for value in (0.0, 1.0)],
        )
        ((_, _, _, [(_, _, value)]),) = merging.merged(own, others)
        assert value == combined, name


def test_every_rule_is_about_a_metric_there_is():
    known = {family[0] for family in families_of(Metrics(CollectorRegistry()).registry)}
    served = {"unroll_engine_tokens_per_message"}
    ruled = merging._MOST | merging._LEAST | merging._PARENTS
    # ProcessCollector has its own where there is /proc.
    assert {name for name in ruled if not name.startswith("process_")} <= known | served
