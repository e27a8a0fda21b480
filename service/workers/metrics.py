"""What the parent counts of its workers: the only metrics that say which one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.process.memory import resident_bytes
from service.workers.merging import MergedMetrics
from service.workers.pool import Slot, WorkerPool


class WorkerMetrics:
    """A Watcher. merged: the page of all. registry: the parent's own."""

    def __init__(self, merged: MergedMetrics, registry: CollectorRegistry) -> None:
        self._merged = merged
        labels = ("worker",)
        self.up = Gauge(
            "unroll_worker_up", "1 while a worker takes calls, else 0.", labels, registry=registry
        )
        self.restarts = Counter(
            "unroll_worker_restarts_total",
            "Times that a worker ended by itself, or was replaced, and was started again.",
            labels,
            registry=registry,
        )
        self.requests = Gauge(
            "unroll_worker_open_requests",
            "Requests under way in a worker, of the last second.",
            labels,
            registry=registry,
        )
        self.memory = Gauge(
            "unroll_worker_resident_memory_bytes",
            "Resident memory of a worker; pages of files that several have count in each.",
            labels,
            registry=registry,
        )

    def watch(self, pool: WorkerPool) -> None:
        for slot in pool.slots:
            label = str(slot.number)
            self.restarts.labels(label)
            self.up.labels(label).set_function(partial(getattr, slot, "is_awake"))
            self.requests.labels(label).set_function(partial(getattr, slot, "calls"))
            self.memory.labels(label).set_function(partial(_memory_of, slot))

    def report(self, worker: int, families: Sequence[Any]) -> None:
        self._merged.report(worker, families)

    def worker_ended(self, worker: int) -> None:
        self._merged.worker_ended(worker)

    def restarted(self, worker: int) -> None:
        self.restarts.labels(str(worker)).inc()


def _memory_of(slot: Slot) -> int:
    return resident_bytes(slot.process.pid) if slot.process and slot.is_ready else 0
