"""Kinds of metric that engines and models need and prometheus_client does not have."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class CountedHistogram(Collector):
    """A histogram whose observations come in groups of equal values.

    One step gives every row the same inter-token time; observing it row by row would cost
    more than drawing the tokens.
    """

    def __init__(
        self, name: str, documentation: str, registry: CollectorRegistry, buckets: Sequence[float]
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.buckets = tuple(buckets)
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, model: str, value: float, count: int) -> None:
        """``count`` observations of ``value``."""
        with self._lock:
            counts = self._counts.setdefault(model, [0] * (len(self.buckets) + 1))
            counts[bisect.bisect_left(self.buckets, value)] += count
            self._sums[model] = self._sums.get(model, 0.0) + value * count

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=["model"])
        with self._lock:
            for model, counts in self._counts.items():
                family.add_metric([model], self._cumulative(counts), self._sums[model])
        yield family

    def _cumulative(self, counts: Sequence[int]) -> list[tuple[str, float]]:
        total, rows = 0, []
        for edge, count in zip((*map(str, map(float, self.buckets)), "+Inf"), counts, strict=True):
            total += count
            rows.append((edge, float(total)))
        return rows


class FactGauge:
    """A gauge that has a value for what is so now, and none for anything else."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._told: set[tuple[str, ...]] = set()

    def tell(self, facts: Mapping[tuple[str, ...], float]) -> None:
        """facts: values by labels."""
        for labels, value in facts.items():
            self._gauge.labels(*labels).set(value)
        for labels in self._told - facts.keys():
            self._gauge.remove(*labels)
        self._told = set(facts)


class GaugeShare:
    """One engine's part of a gauge: versions of a model that run side by side are summed."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0

    def set(self, value: int) -> None:
        if value != self._value:
            self._gauge.inc(value - self._value)
            self._value = value
