"""Every metric of the service, in one place. Names carry base units; labels stay few.

Engines report once a step, never once a token, so that measuring costs a step's share.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.engine.cards import ModelCard
from service.engine.catalogue import RefusedModel
from service.engine.requests import FinishReason
from service.engine.statistics import ModelStatistics
from service.instruments import CountedHistogram, FactGauge, GaugeShare

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STEPS_TOLD_TOGETHER = 16
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """registry: a fresh one for each service, so that two in one process do not mix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "unroll_requests_total",
            "Requests answered, by model, method and gRPC status.",
            ["model", "method", "code"],
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "unroll_queue_seconds",
            "Time from a request's arrival to the start of its computation.",
            ["model"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.first_token_seconds = Histogram(
            "unroll_time_to_first_token_seconds",
            "Time from a request's arrival to its first token.",
            ["model"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.inter_token_seconds = CountedHistogram(
            "unroll_inter_token_seconds",
            "Time between two tokens of one stream, as the engine makes them.",
            registry,
            _SECONDS,
        )
        self.tokens = Counter(
            "unroll_tokens_total",
            "Tokens of finished requests, read (in) and delivered (out).",
            ["model", "direction"],
            registry=registry,
        )
        self.finished = Counter(
            "unroll_streams_finished_total",
            "Streams that ended, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self.active_rows = Gauge(
            "unroll_active_rows",
            "Streams in the batch of the last decode step.",
            ["model"],
            registry=registry,
        )
        self.waiting = Gauge(
            "unroll_waiting_requests",
            "Requests that wait for a row.",
            ["model"],
            registry=registry,
        )
        self.paused = Gauge(
            "unroll_paused_streams",
            "Streams that left the batch until their readers catch up or their callers send more.",
            ["model"],
            registry=registry,
        )
        self.sequences = Gauge(
            "unroll_open_sequences",
            "Sequences whose state is kept between requests.",
            registry=registry,
        )
        self.batch_rows = Histogram(
            "unroll_batch_rows",
            "Rows of each decode step or predict batch.",
            ["model", "graph"],
            registry=registry,
            buckets=_ROWS,
        )
        self.batch_seconds = Histogram(
            "unroll_batch_seconds",
            "Time of each decode step, with the priming before it, or predict batch.",
            ["model", "graph"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.primed_tokens = Counter(
            "unroll_primed_tokens_total",
            "Prompt and source tokens read by the prime graph.",
            ["model"],
            registry=registry,
        )
        self.models = Gauge(
            "unroll_model_loaded",
            "1 for each model that is served, with its version, precision and execution provider.",
            ["model", "version", "precision", "provider"],
            registry=registry,
        )
        self.batch_invariant = Gauge(
            "unroll_batch_invariant",
            "1 where rows gave the same bits alone and in any batch, at load; else 0.",
            ["model", "fingerprint"],
            registry=registry,
        )
        self.refused = Gauge(
            "unroll_model_refused",
            "1 for each bundle that was found and not loaded.",
            ["model", "version"],
            registry=registry,
        )
        self.loads = Counter(
            "unroll_model_loads_total",
            "Versions of models that were loaded, kept by a load, refused or unloaded.",
            ["model", "outcome"],
            registry=registry,
        )
        self._models, self._invariant, self._refused = (
            FactGauge(gauge) for gauge in (self.models, self.batch_invariant, self.refused)
        )

    def tell_models(self, served: Sequence[ModelCard], refused: Sequence[RefusedModel]) -> None:
        """What is served now, and what could not be loaded."""
        self._models.tell({(c.name, c.version, c.precision, c.provider): 1 for c in served})
        self._invariant.tell({(c.name, c.fingerprint[:12]): c.batch_invariant for c in served})
        self._refused.tell({(bundle.name, bundle.version): 1 for bundle in refused})


class GenerateMetrics:
    """What one generating engine reports; the labels are looked up once."""

    def __init__(self, metrics: Metrics, model: str, statistics: ModelStatistics) -> None:
        self.model = model
        self._statistics = statistics
        self._steps: list[tuple[int, int, int, float]] = []
        self._gaps: list[tuple[int, float]] = []
        self._inter_token = metrics.inter_token_seconds
        self._queue = metrics.queue_seconds.labels(model)
        self._first_token = metrics.first_token_seconds.labels(model)
        self._tokens_in = metrics.tokens.labels(model, "in")
        self._tokens_out = metrics.tokens.labels(model, "out")
        self._finished = {r: metrics.finished.labels(model, r.value) for r in FinishReason}
        self._active = GaugeShare(metrics.active_rows.labels(model))
        self._waiting = GaugeShare(metrics.waiting.labels(model))
        self._paused = GaugeShare(metrics.paused.labels(model))
        self._rows = metrics.batch_rows.labels(model, "step")
        self._seconds = metrics.batch_seconds.labels(model, "step")
        self._primed = metrics.primed_tokens.labels(model)

    def stepped(self, rows: int, waiting: int, primed_tokens: int, seconds: float) -> None:
        self._steps.append((rows, waiting, primed_tokens, seconds))
        if len(self._steps) == _STEPS_TOLD_TOGETHER:
            self._tell()

    def tokens_followed(self, count: int, seconds: float) -> None:
        if count:
            self._gaps.append((count, seconds))

    def _tell(self) -> None:
        """Of several steps at once: between two steps there is no time to lose."""
        steps, self._steps = self._steps, []
        gaps, self._gaps = self._gaps, []
        for count, seconds in gaps:
            self._inter_token.observe(self.model, seconds, count)
        ran = [(rows, seconds) for rows, _, _, seconds in steps if rows]
        for rows, seconds in ran:
            self._rows.observe(rows)
            self._seconds.observe(seconds)
        if ran:
            self._statistics.executed(ran)
        if steps:
            self._primed.inc(sum(primed for _, _, primed, _ in steps))
            self._active.set(steps[-1][0])
            self._waiting.set(steps[-1][1])

    def paused(self, count: int) -> None:
        self._paused.set(count)

    def idle(self) -> None:
        self._tell()
        self._active.set(0)
        self._waiting.set(0)

    def began(self, queue_seconds: float) -> None:
        self._queue.observe(queue_seconds)

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        self._statistics.answered(queue_seconds, compute_seconds)

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def finished(self, reason: FinishReason, input_tokens: int, output_tokens: int) -> None:
        self._finished[reason].inc()
        self._tokens_in.inc(input_tokens)
        self._tokens_out.inc(output_tokens)


class BatchMetrics:
    """What one batching engine reports. graph: predict or score."""

    def __init__(
        self, metrics: Metrics, model: str, graph: str, statistics: ModelStatistics
    ) -> None:
        self._statistics = statistics
        self._queue = metrics.queue_seconds.labels(model)
        self._rows = metrics.batch_rows.labels(model, graph)
        self._seconds = metrics.batch_seconds.labels(model, graph)
        self._tokens_in = metrics.tokens.labels(model, "in")

    def batch_ran(self, rows: int, tokens: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._seconds.observe(seconds)
        self._tokens_in.inc(tokens)
        self._statistics.executed([(rows, seconds)])

    def answered(self, queue_seconds: float, compute_seconds: float) -> None:
        self._statistics.answered(queue_seconds, compute_seconds)

    def began(self, queue_seconds: float) -> None:
        self._queue.observe(queue_seconds)
