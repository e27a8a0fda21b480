"""Metric types that prometheus_client lacks."""

from __future__ import annotations

import asyncio
import bisect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class BulkHistogram:
    """The observations of one set of labels."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._lock = threading.Lock()
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """``count`` observations of ``value``."""
        with self._lock:
            self._counts[bisect.bisect_left(self._edges, value)] += count
            self._sum += value * count

    def observe_all(self, values: Iterable[float]) -> None:
        """One observation of each."""
        edges, counts = self._edges, self._counts
        with self._lock:
            for value in values:
                counts[bisect.bisect_left(edges, value)] += 1
                self._sum += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """How many were at most each edge, by the edge's text, and the sum of all."""
        with self._lock:
            counts, sum_of_all = list(self._counts), self._sum
        total, rows = 0, []
        for edge, count in zip((*map(str, map(float, self._edges)), "+Inf"), counts, strict=True):
            total += count
            rows.append((edge, float(total)))
        return rows, sum_of_all


class CountedHistogram(Collector):
    """A histogram whose observations come several at once, many of them equal.

    One step gives every row the same inter-token time, and steps are recorded by the dozen;
    observing each by itself would cost more than drawing the tokens.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self.buckets = tuple(buckets)
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, ...], BulkHistogram] = {}
        registry.register(self)

    def labels(self, *values: str) -> BulkHistogram:
        with self._lock:
            if values not in self._tallies:
                self._tallies[values] = BulkHistogram(self.buckets)
            return self._tallies[values]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        with self._lock:
            tallies = list(self._tallies.items())
        for values, tally in tallies:
            family.add_metric(values, *tally.read())
        yield family


class ReadCounter(Collector):
    """A counter that is kept elsewhere and read at a scrape.

    read: by the values of its one label.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str,
        registry: CollectorRegistry,
        read: Callable[[], Mapping[str, int]],
    ) -> None:
        self.name, self.documentation, self.label = name, documentation, label
        self._read = read
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self.name, self.documentation, labels=(self.label,))
        for value, count in self._read().items():
            family.add_metric((value,), count)
        yield family


class InfoGauge:
    """A gauge that has a value for what is so now, and none for anything else."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._known: set[tuple[str, ...]] = set()

    def replace(self, facts: Mapping[tuple[str, ...], float]) -> None:
        """facts: values by labels."""
        for labels, value in facts.items():
            self._gauge.labels(*labels).set(value)
        for labels in self._known - facts.keys():
            self._gauge.remove(*labels)
        self._known = set(facts)


class GaugeShare:
    """One engine's part of a gauge: versions of a model that run side by side are summed."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0

    def set(self, value: int) -> None:
        if value != self._value:
            self._gauge.inc(value - self._value)
            self._value = value


class LoopLag:
    """How late an event loop does what is due: it is asked to do something every so often.

    observe: called with the seconds of each delay.
    """

    def __init__(self, observe: Callable[[float], None], every_seconds: float = 0.25) -> None:
        self._observe = observe
        self._every = every_seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """On the running loop."""
        self._wait(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._every
        self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._observe(max(0.0, loop.time() - due))
        self._wait(loop)
