"""Metrics of engines, recorded once a step, never once a token."""

from __future__ import annotations

from service.engine.requests import FinishReason
from service.observability.metrics import Metrics
from service.observability.prom_types import GaugeShare
from service.serving.statistics import ModelStatistics

_STEPS_RECORDED_TOGETHER = 16


class GenerateMetrics:
    """What one generating engine reports; the labels are looked up once.

    capacity: rows of a step at most.
    """

    def __init__(
        self, metrics: Metrics, model: str, statistics: ModelStatistics, capacity: int
    ) -> None:
        self._statistics = statistics
        self._steps: list[tuple[int, int, int, float, float]] = []
        self._gaps: list[tuple[int, float]] = []
        self._inter_token = metrics.inter_token_seconds.labels(model)
        self._queue = metrics.queue_seconds.labels(model)
        self._compute = metrics.compute_seconds.labels(model)
        self._first_token = metrics.first_token_seconds.labels(model)
        self._tokens_in = metrics.tokens.labels(model, "in")
        self._tokens_out = metrics.tokens.labels(model, "out")
        self._input_tokens = metrics.input_tokens.labels(model)
        self._output_tokens = metrics.output_tokens.labels(model)
        self._finished = {r: metrics.finished.labels(model, r.value) for r in FinishReason}
        self._resumed = metrics.resumed.labels(model)
        self._not_finite = metrics.not_finite.labels(model)
        self._active = GaugeShare(metrics.active_rows.labels(model))
        self._waiting = GaugeShare(metrics.waiting.labels(model))
        self._paused = GaugeShare(metrics.paused.labels(model))
        self._preempted = metrics.preempted.labels(model)
        self._rows = metrics.batch_rows.labels(model, "step")
        self._seconds = metrics.batch_seconds.labels(model, "step")
        self._decode = metrics.decode_seconds.labels(model)
        self._prefill = metrics.prefill_seconds.labels(model)
        self._prefilled = metrics.prefill_tokens.labels(model)
        self._prefix_hits = metrics.prefix_lookups.labels(model, "hit")
        self._prefix_misses = metrics.prefix_lookups.labels(model, "miss")
        self._prefix_tokens = metrics.prefix_tokens.labels(model)
        metrics.batch_capacity.labels(model, "step").set(capacity)

    def stepped(
        self,
        rows: int,
        waiting: int,
        prefill_tokens: int,
        seconds: float,
        prefill_seconds: float,
        followed: int = 0,
        gap: float = 0.0,
    ) -> None:
        self._steps.append((rows, waiting, prefill_tokens, seconds, prefill_seconds))
        if followed:
            self._gaps.append((followed, gap))
        if len(self._steps) == _STEPS_RECORDED_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        """Of several steps at once: between two steps there is no time to lose."""
        steps, self._steps = self._steps, []
        gaps, self._gaps = self._gaps, []
        for count, seconds in gaps:
            self._inter_token.observe(seconds, count)
        ran = [(rows, seconds) for rows, _, _, seconds, _ in steps if rows]
        if ran:
            self._rows.observe_all([rows for rows, _ in ran])
            self._seconds.observe_all([seconds for _, seconds in ran])
            self._decode.observe_all(
                [seconds - prefilled for rows, _, _, seconds, prefilled in steps if rows]
            )
            self._statistics.executed(ran)
        if steps:
            self._report_prefilled(steps)
            self._active.set(steps[-1][0])
            self._waiting.set(steps[-1][1])

    def _report_prefilled(self, steps: list[tuple[int, int, int, float, float]]) -> None:
        prefilled = [(tokens, seconds) for _, _, tokens, _, seconds in steps if tokens]
        if prefilled:
            self._prefilled.inc(sum(tokens for tokens, _ in prefilled))
            self._prefill.observe_all([seconds for _, seconds in prefilled])

    def paused(self, count: int) -> None:
        self._paused.set(count)

    def preempted(self) -> None:
        self._preempted.inc()

    def idle(self) -> None:
        self._flush()
        self._active.set(0)
        self._waiting.set(0)

    def began(self, queue_seconds: float, is_resumed: bool) -> None:
        self._queue.observe(queue_seconds)
        if is_resumed:
            self._resumed.inc()

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        self._compute.observe(compute_seconds)

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def not_finite(self) -> None:
        self._not_finite.inc()

    def prefix_found(self, tokens: int) -> None:
        if tokens:
            self._prefix_hits.inc()
            self._prefix_tokens.inc(tokens)
        else:
            self._prefix_misses.inc()

    def finished(self, reason: FinishReason, input_tokens: int, output_tokens: int) -> None:
        self._finished[reason].inc()
        self._tokens_in.inc(input_tokens)
        self._tokens_out.inc(output_tokens)
        self._input_tokens.observe(input_tokens)
        self._output_tokens.observe(output_tokens)


class BatchMetrics:
    """What one batching engine reports. graph: predict or score. capacity: rows of a batch."""

    def __init__(
        self, metrics: Metrics, model: str, graph: str, statistics: ModelStatistics, capacity: int
    ) -> None:
        self._statistics = statistics
        self._queue = metrics.queue_seconds.labels(model)
        self._compute = metrics.compute_seconds.labels(model)
        self._rows = metrics.batch_rows.labels(model, graph)
        self._seconds = metrics.batch_seconds.labels(model, graph)
        self._tokens_in = metrics.tokens.labels(model, "in")
        self._not_finite = metrics.not_finite.labels(model)
        metrics.batch_capacity.labels(model, graph).set(capacity)

    def batch_ran(self, rows: int, tokens: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._seconds.observe(seconds)
        self._tokens_in.inc(tokens)
        self._statistics.executed([(rows, seconds)])

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        self._compute.observe(compute_seconds)

    def began(self, queue_seconds: float) -> None:
        self._queue.observe(queue_seconds)

    def not_finite(self) -> None:
        self._not_finite.inc()
