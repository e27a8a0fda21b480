"""Metrics that are collected at a scrape and cost nothing between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.serving.model_version import ServedVersion
from service.serving.statistics import Duration, StatisticsSnapshot

_NANOSECONDS = 1e9
_VERSION = ("model", "version")
_ENGINE = ("model", "engine")


class ServedMetrics(Collector):
    """Counts by version, as ModelStatistics keeps them; work of engines, summed by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._served: tuple[ServedVersion, ...] = ()
        registry.register(self)

    def show(self, served: Sequence[ServedVersion]) -> None:
        """What is served from now on; counts of what no longer is end with it."""
        self._served = tuple(served)

    def collect(self) -> Iterable[Metric]:
        served = self._served
        snapshots = [((v.name, v.version), v.statistics.snapshot()) for v in served]
        yield from _calls(snapshots)
        yield from _work(served)
        yield from _refusals(served)
        yield _messages(served)


def _calls(snapshots: Sequence[tuple[tuple[str, str], StatisticsSnapshot]]) -> Iterable[Metric]:
    calls = CounterMetricFamily(
        "unroll_model_calls",
        "Calls of a version, by whether they succeeded.",
        labels=(*_VERSION, "outcome"),
    )
    inferences = CounterMetricFamily(
        "unroll_model_inferences", "Inputs of a version's successful calls.", labels=_VERSION
    )
    executions = CounterMetricFamily(
        "unroll_model_executions", "Batches and decode steps a version has run.", labels=_VERSION
    )
    seconds = CounterMetricFamily(
        "unroll_model_phase_seconds",
        "Time that a version's successful calls spent in each phase; success and fail: "
        "whole calls.",
        labels=(*_VERSION, "phase"),
    )
    for labels, seen in snapshots:
        for outcome, sent in (("success", seen.success), ("fail", seen.fail)):
            calls.add_metric((*labels, outcome), sent.count)
        inferences.add_metric(labels, seen.inference_count)
        executions.add_metric(labels, seen.execution_count)
        for phase, spent in _phases(seen).items():
            seconds.add_metric((*labels, phase), spent.nanoseconds / _NANOSECONDS)
    yield from (calls, inferences, executions, seconds)


def _phases(seen: StatisticsSnapshot) -> dict[str, Duration]:
    return {
        "success": seen.success,
        "fail": seen.fail,
        "queue": seen.queue,
        "compute_input": seen.compute_input,
        "compute_infer": seen.compute_infer,
        "compute_output": seen.compute_output,
    }


def _work(served: Sequence[ServedVersion]) -> Iterable[Metric]:
    work = GaugeMetricFamily(
        "unroll_engine_work",
        "Requests of an engine (of predict and score: texts) that run or wait.",
        labels=_ENGINE,
    )
    limit = GaugeMetricFamily(
        "unroll_engine_work_limit",
        "Requests (or texts) that an engine takes before it refuses more.",
        labels=_ENGINE,
    )
    coalescer = GaugeMetricFamily(
        "unroll_engine_tokens_per_message",
        "Tokens that an engine puts into a message now, for requests that do not say.",
        labels=_ENGINE,
    )
    open_work: Counter[tuple[str, str]] = Counter()
    limits: Counter[tuple[str, str]] = Counter()
    paces: dict[tuple[str, str], int] = {}
    for version in served:
        for thread in version.threads:
            key = (version.name, thread.purpose)
            open_work[key] += thread.open_work
            limits[key] += thread.limit
            paces[key] = max(paces.get(key, 0), thread.coalescer.tokens_per_message)
    for key in limits:
        work.add_metric(key, open_work[key])
        limit.add_metric(key, limits[key])
        coalescer.add_metric(key, paces[key])
    yield from (work, limit, coalescer)


def _refusals(served: Sequence[ServedVersion]) -> Iterable[Metric]:
    unread = CounterMetricFamily(
        "unroll_unread_streams_given_up",
        "Streams that were given up unread since others waited for their places.",
        labels=_VERSION,
    )
    too_late = CounterMetricFamily(
        "unroll_deadline_refusals",
        "Requests refused at once since they would have waited past their deadline.",
        labels=_VERSION,
    )
    for version in served:
        labels = (version.name, version.version)
        unread.add_metric(labels, sum(thread.given_up for thread in version.threads))
        too_late.add_metric(labels, sum(thread.too_late for thread in version.threads))
    yield from (unread, too_late)


def _messages(served: Sequence[ServedVersion]) -> Metric:
    tokens = SummaryMetricFamily(
        "unroll_message_tokens",
        "Tokens of each message of a stream: count of messages and sum of tokens, as they leave.",
        labels=_VERSION,
    )
    for version in served:
        messages = sum(thread.messages for thread in version.threads)
        sent = sum(thread.message_tokens for thread in version.threads)
        tokens.add_metric((version.name, version.version), messages, sent)
    return tokens
