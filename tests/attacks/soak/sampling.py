"""What the service takes, looked at once a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from tests.attacks.harness import _sample
from tests.attacks.soak.container import Contained

_EVERY_SECONDS = 1.0
# The page of metrics is longer than what is read of it; it is fetched more rarely.
_METRICS_EVERY = 2


@dataclass(frozen=True)
class Point:
    """seconds: since the first one. cgroup_bytes: with the page cache. cpu: seconds so far.

    stage, budget_bytes: of the page of metrics; None where it was not fetched or not answered.
    """

    seconds: float
    resident_bytes: int
    cgroup_bytes: int
    files: int
    threads: int
    cpu: float
    stage: int | None = None
    budget_bytes: int | None = None


class Sampling:
    """Points of a service from now on, until stop(); it ends by itself with the service."""

    def __init__(self, service: Contained) -> None:
        self.points: list[Point] = []
        self._service = service
        self._began = time.monotonic()
        self._ended = threading.Event()
        self.look()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def look(self, with_metrics: bool = True) -> Point:
        service = self._service
        now = _sample(service.pid)
        stage, budget = self._state() if with_metrics else (None, None)
        point = Point(
            now.at - self._began, now.resident_bytes, service.cgroup.used(),
            now.files, now.threads, now.cpu, stage, budget,
        )  # fmt: skip
        self.points.append(point)
        return point

    def _state(self) -> tuple[int | None, int | None]:
        try:
            page = self._service.metrics()
        except OSError:  # another attack keeps newcomers out
            return None, None
        used = page.sum("unroll_memory_budget_used_bytes")
        return int(page.sum("unroll_overload_stage")), int(used)

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(_EVERY_SECONDS):
            number += 1
            try:
                self.look(number % _METRICS_EVERY == 0)
            except (OSError, IndexError):  # it has ended
                return

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
