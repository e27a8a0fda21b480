"""Metrics of several processes as one: counters and histograms summed, gauges by their meaning."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# A family as it crosses: name, type, help, and samples of (name, labels, value).
Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]

# Counts of what was; they never fall, so those of a worker that has ended stay.
_ADDED = frozenset(("counter", "histogram", "summary"))
# Of whichever process says most, or least: what is the same for all, or bad in one.
_MOST = frozenset((
    "unroll_model_loaded", "unroll_model_state", "unroll_model_refused",
    "unroll_model_bundle_bytes", "unroll_overload_stage", "unroll_engine_tokens_per_message",
    "unroll_build_info", "unroll_usable_cores", "unroll_memory_limit_bytes", "python_info",
    "process_open_fds", "process_max_fds",
))  # fmt: skip
_LEAST = frozenset(("unroll_batch_invariant", "process_start_time_seconds"))
# What the parent alone knows, or all read from the same files.
_PARENTS = frozenset((
    "unroll_ready", "unroll_front_end_resident_memory_bytes", "unroll_front_end_restarts",
    "unroll_tls_certificate_expiry_timestamp_seconds", "unroll_reload_failures",
))  # fmt: skip


def families_of(registry: CollectorRegistry) -> list[Family]:
    """What a process has now."""
    return [
        (m.name, m.type, m.documentation, [(s.name, dict(s.labels), s.value) for s in m.samples])
        for m in registry.collect()
    ]


def counts_of(families: Iterable[Family]) -> list[Family]:
    """Of ``families``, what stays when their process has ended."""
    return [family for family in families if family[1] in _ADDED]


def merged(parent: Sequence[Family], workers: Sequence[Sequence[Family]]) -> list[Family]:
    """One family of each name, in the order of the first process that has it."""
    found: dict[str, list[Family]] = {}
    for family in parent:
        found.setdefault(family[0], []).append(family)
    for families in workers:
        for family in families:
            if family[0] not in _PARENTS:
                found.setdefault(family[0], []).append(family)
    return [_merge(same) for same in found.values()]


def _merge(same: Sequence[Family]) -> Family:
    name, kind, documentation, _ = same[0]
    combine = _how(name)
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for _, _, _, samples in same:
        for sample, labels, value in samples:
            key = (sample, tuple(labels.items()))
            values[key] = combine(values[key], value) if key in values else value
    return name, kind, documentation, [(n, dict(labels), v) for (n, labels), v in values.items()]


def _how(name: str) -> Callable[[float, float], float]:
    if name in _MOST:
        return max
    return min if name in _LEAST else operator.add


class MergedMetrics(Collector):
    """One page of all: the parent's own metrics, what the workers last said, and what those that
    have ended had counted.

    registry: of the page. own: the parent's own metrics.
    """

    def __init__(self, registry: CollectorRegistry, own: CollectorRegistry) -> None:
        self._own = own
        self._said: dict[int, Sequence[Family]] = {}
        self._ended: list[Family] = []
        registry.register(self)

    def report(self, worker: int, families: Sequence[Any]) -> None:
        """families: as they crossed."""
        self._said = {**self._said, worker: [_read(family) for family in families]}

    def worker_ended(self, worker: int) -> None:
        """What it had counted last stays in the sums; its gauges end with it."""
        said = dict(self._said)
        self._ended = merged(self._ended, [counts_of(said.pop(worker, ()))])
        self._said = said

    def collect(self) -> Iterable[Metric]:
        own = families_of(self._own)
        for name, kind, documentation, samples in merged(own, [self._ended, *self._said.values()]):
            metric = Metric(name, documentation, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def _read(family: Sequence[Any]) -> Family:
    name, kind, documentation, samples = family
    return name, kind, documentation, [(s, _texts(labels), float(v)) for s, labels, v in samples]


def _texts(labels: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in labels.items()}
