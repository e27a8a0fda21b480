"""Every metric of the service, in one place. Names carry base units; labels stay few.

What engines report is in ``engine_metrics.py``, what is read at a scrape in ``collectors.py``.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Sequence
from functools import lru_cache, partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from bundle.manifest import StateTensor
from service.access.memory_budget import KINDS, MemoryBudget
from service.engine.errors import (
    EngineFailed,
    ModelNotFound,
    ReaderStalled,
    RequestError,
    ServiceStopping,
    TimedOut,
    WrongInput,
)
from service.observability.collectors import ServedMetrics
from service.observability.logs import dropped_lines
from service.observability.prom_types import CountedHistogram, InfoGauge, ReadCounter
from service.process.overload import OverloadManager
from service.refused_model import RefusedModel
from service.serving.model_info import ModelCard
from service.serving.prefix_cache import PrefixCache

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Streams live long, of tags for ever.
_REQUEST_SECONDS = (*_SECONDS[1:], 30.0, 60.0, 300.0, 1800.0)
_LOAD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

# States that a version of a model is in, as a label.
LOADED, LOADING, FAILED, REFUSED, UNLOADED = "loaded", "loading", "failed", "refused", "unloaded"

# What is read again while the service runs, as a label.
RELOADED = ("tls", "tokens", "settings", "presets")

# Why a request was given up; any other reason is one to refuse it.
CALLER_LEFT, DEADLINE, STALLED = "caller_left", "deadline", "reader_stalled"
# Labels of errors whose names say more than an operator asks; others have their names in lower
# case.
_REASONS: dict[type[RequestError], str] = {
    WrongInput: "invalid",
    ModelNotFound: "not_found",
    ServiceStopping: "stopping",
    ReaderStalled: STALLED,
    TimedOut: DEADLINE,
}


class Metrics:
    """registry: a fresh one for each service, so that two in one process do not mix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # A scrape would be half as long again, and no question needs them.
        disable_created_metrics()
        self._add_requests()
        self._add_streams()
        self._add_batches()
        self._add_models()
        self.served = ServedMetrics(registry)
        self._add_process()
        self._add_memory()
        # By model: versions that are being loaded, and the last one that was served.
        self._loading: dict[str, Sequence[str]] = {}
        self._last: dict[str, str] = {}
        self._cards: Sequence[ModelCard] = ()
        self._refused_now: Sequence[RefusedModel] = ()
        self._failed_now: Collection[tuple[str, str]] = ()

    # -- kinds ---------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _counted(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> CountedHistogram:
        return CountedHistogram(name, text, labels, self.registry, buckets)

    # -- what there is -------------------------------------------------------------------------

    def _add_requests(self) -> None:
        self.requests = self._counter(
            "unroll_requests_total",
            "Requests answered, by model, method and gRPC status.",
            "model",
            "method",
            "code",
        )
        self.request_seconds = self._histogram(
            "unroll_request_seconds",
            "Time from a request's admission to its end, of a stream to its last message.",
            "model",
            "method",
            buckets=_REQUEST_SECONDS,
        )
        # Finding a child takes longer than counting with it.
        self._counter_of = lru_cache(1024)(self.requests.labels)
        self._histogram_of = lru_cache(1024)(self.request_seconds.labels)
        self.rejected = self._counter(
            "unroll_rejected_total",
            "Requests refused, by reason: queue_full, stopping, invalid, not_found, ….",
            "model",
            "reason",
        )
        self.cancelled = self._counter(
            "unroll_cancelled_total",
            "Requests given up, by reason: caller_left, deadline, reader_stalled.",
            "model",
            "reason",
        )
        self.not_finite = self._counter(
            "unroll_not_finite_total",
            "Requests that failed since the model computed NaN or infinity for them.",
            "model",
        )
        self.open_requests = self._gauge("unroll_open_requests", "Requests under way.")
        self.queue_seconds = self._histogram(
            "unroll_queue_seconds",
            "Time from a request's arrival to the start of its computation.",
            "model",
        )
        self.compute_seconds = self._histogram(
            "unroll_compute_seconds",
            "Time of the steps or batches that a request took part in, until it was answered.",
            "model",
        )
        self.first_token_seconds = self._histogram(
            "unroll_time_to_first_token_seconds",
            "Time from a request's arrival to its first token.",
            "model",
        )
        self.inter_token_seconds = self._counted(
            "unroll_inter_token_seconds",
            "Time between two tokens of one stream, as the engine makes them.",
            "model",
        )
        self.tokens = self._counter(
            "unroll_tokens_total",
            "Tokens of finished requests, read (in) and delivered (out).",
            "model",
            "direction",
        )
        self.input_tokens = self._histogram(
            "unroll_request_input_tokens",
            "Tokens that a stream's request read, by its prompt, source or pushes.",
            "model",
            buckets=_TOKENS,
        )
        self.output_tokens = self._histogram(
            "unroll_request_output_tokens",
            "Tokens that a stream's request was delivered, of all its samples.",
            "model",
            buckets=_TOKENS,
        )

    def _add_streams(self) -> None:
        self.finished = self._counter(
            "unroll_streams_finished_total", "Streams that ended, by reason.", "model", "reason"
        )
        self.resumed = self._counter(
            "unroll_streams_resumed_total",
            "Streams that went on from a resume token, of this server or another.",
            "model",
        )
        self.active_rows = self._gauge(
            "unroll_active_rows", "Streams in the batch of the last decode step.", "model"
        )
        self.row_capacity = self._gauge(
            "unroll_row_capacity", "Rows for streams of the versions that are served.", "model"
        )
        self.waiting = self._gauge(
            "unroll_waiting_requests", "Requests that wait for a row.", "model"
        )
        self.preempted = self._counter(
            "unroll_preempted_streams_total",
            "Streams that lost their row to a caller below its share, to go on later.",
            "model",
        )
        self.paused = self._gauge(
            "unroll_paused_streams",
            "Streams that left the batch until their readers catch up or their callers send more.",
            "model",
        )
        self.frame_seconds = self._counted(
            "unroll_frame_seconds",
            "Time from a frame of numbers coming in to its answer, while it is stepped.",
            "model",
        )
        self.late_frames = self._counter(
            "unroll_late_frames_total",
            "Frames whose deadline had passed: answered late, or skipped.",
            "model",
            "outcome",
        )
        self.states = self._gauge(
            "unroll_named_states", "Named states in memory; those in a folder are not counted."
        )
        self.sequences = self._gauge(
            "unroll_open_sequences", "Sequences whose state is kept between requests."
        )
        self.constraints = self._counter(
            "unroll_constraints_total",
            "Requests with a constraint, by what became of it: hit (compiled before), compiled, "
            "refused.",
            "outcome",
        )
        self.constraint_seconds = self._histogram(
            "unroll_constraint_compile_seconds",
            "Time to compile a constraint or to refuse it, waiting for others included.",
        )
        self.constraint_bytes = self._gauge(
            "unroll_constraint_bytes", "Memory of compiled constraints, used and kept."
        )

    def _add_batches(self) -> None:
        self.batch_rows = self._counted(
            "unroll_batch_rows",
            "Rows of each decode step or predict batch.",
            "model",
            "graph",
            buckets=_ROWS,
        )
        self.batch_capacity = self._gauge(
            "unroll_batch_capacity",
            "Rows that a decode step or predict batch holds at most.",
            "model",
            "graph",
        )
        self.batch_seconds = self._counted(
            "unroll_batch_seconds",
            "Time of each decode step, with the prefill before it, or predict batch.",
            "model",
            "graph",
        )
        self.decode_seconds = self._counted(
            "unroll_decode_seconds", "Time of each decode step, without any prefill.", "model"
        )
        self.prefill_seconds = self._counted(
            "unroll_prime_seconds",
            "Time of each prefill run, which reads prompts between two steps.",
            "model",
        )
        self.prefill_tokens = self._counter(
            "unroll_primed_tokens_total",
            "Prompt and source tokens read by prefill.",
            "model",
        )
        self.prefix_lookups = self._counter(
            "unroll_prefix_cache_lookups_total",
            "Prompts and sources looked up in the prefix cache: hit where it knew some of one.",
            "model",
            "outcome",
        )
        self.prefix_tokens = self._counter(
            "unroll_prefix_cache_tokens_total",
            "Prompt and source tokens that prefill did not read: the prefix cache knew them.",
            "model",
        )

    def _add_models(self) -> None:
        self._models = self._facts(
            "unroll_model_loaded",
            "1 for each model that is served, with its version, precision and execution provider.",
            "model",
            "version",
            "precision",
            "provider",
        )
        self._states = self._facts(
            "unroll_model_state",
            "1 for each state a version is in: loaded, loading, failed, refused, unloaded.",
            "model",
            "version",
            "state",
        )
        self._invariant = self._facts(
            "unroll_batch_invariant",
            "1 where rows gave the same bits alone and in any batch, at load; else 0.",
            "model",
            "fingerprint",
        )
        self._refused = self._facts(
            "unroll_model_refused",
            "1 for each bundle that was found and not loaded.",
            "model",
            "version",
        )
        self._bundle_bytes = self._facts(
            "unroll_model_bundle_bytes",
            "Size of a served bundle's files, weights and graphs.",
            "model",
            "version",
        )
        self._state_bytes = self._facts(
            "unroll_model_state_bytes",
            "Memory of a served version's rows: their state, both sets of what steps change.",
            "model",
            "version",
        )
        self._row_capacity = InfoGauge(self.row_capacity)
        self.loads = self._counter(
            "unroll_model_loads_total",
            "Versions of models that were loaded, kept by a load, refused or unloaded.",
            "model",
            "outcome",
        )
        self.live_versions = self._gauge(
            "unroll_model_live_versions",
            "Versions of a model in memory: served, and replaced ones that are still used.",
            "model",
        )
        self.waiting_loads = self._gauge(
            "unroll_waiting_loads", "Loads and unloads of models that wait for others."
        )
        self.load_seconds = self._histogram(
            "unroll_model_load_seconds",
            "Time to read, verify, open, probe and warm a version that was loaded.",
            "model",
            buckets=_LOAD_SECONDS,
        )

    def _add_process(self) -> None:
        self.build = self._gauge(
            "unroll_build_info",
            "1, with what runs: service, Python, onnxruntime and the device.",
            "version",
            "python",
            "onnxruntime",
            "device",
        )
        self.ready = self._gauge(
            "unroll_ready",
            "1 while callers reach it, it is not stopping and no engine has failed; else 0.",
        )
        self.front_end_restarts = self._counter(
            "unroll_front_end_restarts_total",
            "Times that the front end's process ended by itself and was started again.",
        )
        self.front_end_memory = self._gauge(
            "unroll_front_end_resident_memory_bytes",
            "Resident memory of the front end's own process; 0 where it has none.",
        )
        self.usable_cores = self._gauge(
            "unroll_usable_cores", "Cores that the process may use, by affinity and cgroup."
        )
        self.memory_limit = self._gauge(
            "unroll_memory_limit_bytes",
            "Memory that the process may use: its cgroup's limit, else the machine's.",
        )
        self.loop_lag_seconds = self._histogram(
            "unroll_event_loop_lag_seconds",
            "How late the event loop does what is due, looked at four times a second.",
        )
        self.certificate_expiry = self._gauge(
            "unroll_tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate in use expires, since 1970; 0 without TLS.",
        )
        self.reload_failures = self._counter(
            "unroll_reload_failures_total",
            "Changes of certificates (tls), tokens, settings or presets that cannot be used; the "
            "former stay in use.",
            "files",
        )
        for files in RELOADED:
            self.reload_failures.labels(files)
        ReadCounter(
            "unroll_log_lines_dropped",
            "Lines of the log that were lost since nobody read them in time, by level.",
            "level",
            self.registry,
            dropped_lines,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _add_memory(self) -> None:
        self.budget_bytes = self._gauge(
            "unroll_memory_budget_used_bytes",
            "Bytes that callers' data takes, by kind: requests, answers, sequences, words, frames, "
            "models, states; and prefixes, which give way to the others.",
            "kind",
        )
        self.budget_limit = self._gauge(
            "unroll_memory_budget_bytes", "Bytes that callers' data may take together."
        )
        self.prefix_bytes = self._gauge(
            "unroll_prefix_cache_bytes", "Bytes that the prefix cache takes."
        )
        self.prefix_limit = self._gauge(
            "unroll_prefix_cache_limit_bytes", "Bytes that the prefix cache may take; 0 where off."
        )
        self.prefix_states = self._gauge(
            "unroll_prefix_cache_states", "States and encoded sources in the prefix cache."
        )
        self.prefix_evictions = self._counter(
            "unroll_prefix_cache_evictions_total",
            "States that the prefix cache dropped, the least recently used first.",
        )
        self.overload_stage = self._gauge(
            "unroll_overload_stage",
            "0 normal, 1 no new streams, 2 small buffers too, 3 nothing new at all.",
        )

    def watch_memory(self, budget: MemoryBudget, overload: OverloadManager) -> None:
        """Read them at each scrape from now on."""
        self.budget_limit.set(budget.limit)
        for kind in KINDS:
            self.budget_bytes.labels(kind).set_function(partial(budget.used_of, kind))
        self.overload_stage.set_function(lambda: overload.stage)

    def watch_prefixes(self, cache: PrefixCache) -> None:
        """Read it at each scrape from now on."""
        self.prefix_limit.set(cache.limit)
        self.prefix_bytes.set_function(lambda: cache.used)
        self.prefix_states.set_function(lambda: cache.states)

    def _facts(self, name: str, text: str, *labels: str) -> InfoGauge:
        return InfoGauge(self._gauge(name, text, *labels))

    # -- what is reported --------------------------------------------------------------------------

    def request_ended(
        self, model: str, method: str, code: str, seconds: float, failure: RequestError | None
    ) -> None:
        """As admission's CountRequest."""
        self._counter_of(model, method, code).inc()
        self._histogram_of(model, method).observe(seconds)
        reason = reason_of(code, failure)
        if reason in (CALLER_LEFT, DEADLINE, STALLED):
            self.cancelled.labels(model, reason).inc()
        elif reason and not isinstance(failure, EngineFailed):
            self.rejected.labels(model, reason).inc()

    def constraint_found(self, outcome: str) -> None:
        """As ConstraintObserver."""
        self.constraints.labels(outcome).inc()

    def constraint_compiled(self, seconds: float) -> None:
        """As ConstraintObserver."""
        self.constraint_seconds.observe(seconds)

    def report_build(self, version: str, runtime: str, device: str) -> None:
        """runtime: the version of onnxruntime."""
        self.build.labels(version, platform.python_version(), runtime, device).set(1)

    def report_models(
        self,
        served: Sequence[ModelCard],
        refused: Sequence[RefusedModel],
        failed: Collection[tuple[str, str]] = (),
        rows: int = 0,
    ) -> None:
        """What is served now, and what could not be loaded.

        failed: names and versions of what is served and broke. rows: of one version's streams.
        """
        self._cards, self._refused_now, self._failed_now = served, refused, failed
        self._last |= {card.name: card.version for card in served}
        self._models.replace({(c.name, c.version, c.precision, c.provider): 1 for c in served})
        self._invariant.replace({(c.name, c.fingerprint[:12]): c.batch_invariant for c in served})
        self._refused.replace({(bundle.name, bundle.version): 1 for bundle in refused})
        self._bundle_bytes.replace({(c.name, c.version): c.bundle_bytes for c in served})
        streaming = [card for card in served if card.state]
        self._state_bytes.replace(
            {(c.name, c.version): rows * _row_bytes(c.state) for c in streaming}
        )
        names = [card.name for card in streaming]
        self._row_capacity.replace({(name,): rows * names.count(name) for name in names})
        self._update_states()

    def report_loading(self, model: str, versions: Sequence[int]) -> None:
        """These versions are being loaded; none once that is over."""
        self._loading[model] = [str(version) for version in versions]
        self._update_states()

    def _update_states(self) -> None:
        states: list[tuple[str, str, str]] = []
        for card in self._cards:
            has_failed = (card.name, card.version) in self._failed_now
            states.append((card.name, card.version, FAILED if has_failed else LOADED))
        states += [(bundle.name, bundle.version, REFUSED) for bundle in self._refused_now]
        states += [(m, v, LOADING) for m, versions in self._loading.items() for v in versions]
        known = {name for name, _, _ in states}
        states += [(m, v, UNLOADED) for m, v in self._last.items() if m not in known]
        self._states.replace(dict.fromkeys(states, 1))


def reason_of(code: str, failure: RequestError | None) -> str:
    """Why a request was refused or given up, for a label; empty for one that was answered.

    code: of its gRPC status, which alone shows a caller that left and a deadline that passed.
    """
    if failure is not None:
        name = type(failure).__name__
        return _REASONS.get(type(failure)) or re.sub(r"\B[A-Z]", r"_\g<0>", name).lower()
    return {"CANCELLED": CALLER_LEFT, "DEADLINE_EXCEEDED": DEADLINE}.get(code, "")


def _row_bytes(state: Sequence[StateTensor]) -> int:
    """Of one row; what a step changes is there twice."""
    return sum(spec.row_bytes * (2 if spec.carried else 1) for spec in state)
