"""Metrics of an engine that steps over frames, recorded once a step."""

from __future__ import annotations

from collections.abc import Sequence

from service.observability.engine_metrics import GenerateMetrics
from service.observability.metrics import Metrics
from service.serving.statistics import ModelStatistics

_RECORDED_TOGETHER = 256


class FrameMetrics(GenerateMetrics):
    """Steps count as tokens that were read, frames as tokens that were made."""

    def __init__(
        self, metrics: Metrics, model: str, statistics: ModelStatistics, capacity: int
    ) -> None:
        super().__init__(metrics, model, statistics, capacity)
        self._frame_seconds = metrics.frame_seconds.labels(model)
        self._late = {what: metrics.late_frames.labels(model, what) for what in ("late", "skipped")}
        self._took: list[float] = []

    def framed(self, seconds: Sequence[float], late: int, skipped: int) -> None:
        self._took.extend(seconds)
        if late:
            self._late["late"].inc(late)
        if skipped:
            self._late["skipped"].inc(skipped)
        if len(self._took) >= _RECORDED_TOGETHER:
            self._record()

    def idle(self) -> None:
        self._record()
        super().idle()

    def _record(self) -> None:
        if self._took:
            took, self._took = self._took, []
            self._frame_seconds.observe_all(took)
