"""Writes docs/metrics.md, one table of every metric, or finds where it differs from the service.

python -m tests.metrics_page [--write]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from service.access.memory_budget import MemoryBudget
from service.engine.errors import QueueFull
from service.engine.requests import FinishReason
from service.observability.engine_metrics import BatchMetrics, GenerateMetrics
from service.observability.frame_metrics import FrameMetrics
from service.observability.metrics import Metrics
from service.process.overload import OverloadManager
from service.refused_model import RefusedModel
from service.serving.model_version import ServedVersion
from service.serving.prefix_cache import PrefixCache
from service.serving.statistics import ModelStatistics
from service.serving.worker import EngineThread
from service.workers.merging import MergedMetrics
from service.workers.metrics import WorkerMetrics
from tests.service.engine.fakes import HIDDEN, card

PAGE = Path("docs/metrics.md")

# What others call the same, or what says the same.
COMPARE = {
    "unroll_requests_total": "Triton `nv_inference_request_success`, "
    "`nv_inference_request_failure`",
    "unroll_request_seconds": "Triton `nv_inference_request_duration_us`, "
    "vLLM `vllm:e2e_request_latency_seconds`",
    "unroll_rejected_total": 'Triton `nv_inference_request_failure{reason="REJECTED"}`',
    "unroll_cancelled_total": 'Triton `nv_inference_request_failure{reason="CANCELED"}`, '
    'vLLM `vllm:request_success_total{finished_reason="abort"}`',
    "unroll_queue_seconds": "Triton `nv_inference_queue_duration_us`, "
    "vLLM `vllm:request_queue_time_seconds`",
    "unroll_compute_seconds": "Triton `nv_inference_compute_infer_duration_us`, "
    "vLLM `vllm:request_inference_time_seconds`",
    "unroll_time_to_first_token_seconds": "Triton `nv_inference_first_response_histogram_ms`, "
    "vLLM `vllm:time_to_first_token_seconds`",
    "unroll_inter_token_seconds": "vLLM `vllm:inter_token_latency_seconds`",
    "unroll_tokens_total": "vLLM `vllm:prompt_tokens_total`, `vllm:generation_tokens_total`",
    "unroll_request_input_tokens": "vLLM `vllm:request_prompt_tokens`",
    "unroll_request_output_tokens": "vLLM `vllm:request_generation_tokens`",
    "unroll_prefix_cache_lookups_total": "vLLM `vllm:prefix_cache_queries_total`, there in tokens",
    "unroll_prefix_cache_tokens_total": "vLLM `vllm:prefix_cache_hits_total`",
    "unroll_streams_finished_total": "vLLM `vllm:request_success_total`",
    "unroll_active_rows": "vLLM `vllm:num_requests_running`",
    "unroll_row_capacity": "with `unroll_active_rows`: vLLM `vllm:kv_cache_usage_perc`",
    "unroll_waiting_requests": "Triton `nv_inference_pending_request_count`, "
    "vLLM `vllm:num_requests_waiting`",
    "unroll_engine_work": "Triton `nv_inference_pending_request_count`, with what runs",
    "unroll_batch_rows": "Triton `nv_inference_count` / `nv_inference_exec_count`, "
    "vLLM `vllm:iteration_tokens_total`",
    "unroll_decode_seconds": "vLLM `vllm:request_decode_time_seconds`, there by request",
    "unroll_prime_seconds": "vLLM `vllm:request_prefill_time_seconds`, there by request",
    "unroll_model_calls_total": "Triton `nv_inference_request_success`, "
    "`nv_inference_request_failure`",
    "unroll_model_inferences_total": "Triton `nv_inference_count`",
    "unroll_model_executions_total": "Triton `nv_inference_exec_count`",
    "unroll_model_phase_seconds_total": "Triton `nv_inference_queue_duration_us`, "
    "`nv_inference_compute_{input,infer,output}_duration_us`",
    "process_resident_memory_bytes": "Triton `nv_cpu_memory_used_bytes`, there of the machine",
    "process_cpu_seconds_total": "Triton `nv_cpu_utilization`, there of the machine",
}
# Where a name does not end in its unit.
UNITS = {
    "unroll_requests_total": "requests",
    "unroll_rejected_total": "requests",
    "unroll_cancelled_total": "requests",
    "unroll_not_finite_total": "requests",
    "unroll_model_live_versions": "versions",
    "unroll_waiting_loads": "loads",
    "unroll_open_requests": "requests",
    "unroll_overload_stage": "stage",
    "unroll_front_end_restarts_total": "restarts",
    "unroll_waiting_requests": "requests",
    "unroll_worker_restarts_total": "restarts",
    "unroll_worker_open_requests": "requests",
    "unroll_engine_work": "requests",
    "unroll_engine_work_limit": "requests",
    "unroll_engine_tokens_per_message": "tokens",
    "unroll_tokens_total": "tokens",
    "unroll_primed_tokens_total": "tokens",
    "unroll_prefix_cache_lookups_total": "inputs",
    "unroll_prefix_cache_tokens_total": "tokens",
    "unroll_prefix_cache_states": "states",
    "unroll_prefix_cache_evictions_total": "states",
    "unroll_streams_finished_total": "streams",
    "unroll_streams_resumed_total": "streams",
    "unroll_paused_streams": "streams",
    "unroll_preempted_streams_total": "streams",
    "unroll_unread_streams_given_up_total": "streams",
    "unroll_deadline_refusals_total": "requests",
    "unroll_row_capacity": "rows",
    "unroll_batch_capacity": "rows",
    "unroll_open_sequences": "sequences",
    "unroll_named_states": "states",
    "unroll_late_frames_total": "frames",
    "unroll_constraints_total": "requests",
    "unroll_usable_cores": "cores",
    "unroll_reload_failures_total": "changes",
    "unroll_log_lines_dropped_total": "lines",
    "unroll_model_loads_total": "versions",
    "unroll_model_calls_total": "calls",
    "unroll_model_inferences_total": "inputs",
    "unroll_model_executions_total": "batches",
    "process_open_fds": "files",
    "process_max_fds": "files",
    "python_gc_objects_collected_total": "objects",
    "python_gc_objects_uncollectable_total": "objects",
    "python_gc_collections_total": "collections",
}
# Gauges that are 1 or 0.
FACTS = (
    "unroll_model_loaded", "unroll_model_state", "unroll_batch_invariant", "unroll_model_refused",
    "unroll_ready", "unroll_build_info", "unroll_worker_up", "python_info",
)  # fmt: skip
SUFFIXES = {
    "_timestamp_seconds": "seconds since 1970",
    "_start_time_seconds": "seconds since 1970",
    "_seconds": "seconds",
    "_bytes": "bytes",
    "_rows": "rows",
    "_tokens": "tokens",
}

HEAD = """\
# Metrics

At `http://HOST:8002/metrics`, in the text formats of Prometheus and OpenMetrics. The table is made
from a running registry by `python -m tests.metrics_page --write`; `make check` finds drift.
`process_…` and `python_…` are those of Prometheus' Python client, on Linux.

Labels have few values: models and versions that are or were served, methods, and the reasons named
here. A model that is not known counts as `model=""`. Engines report up to 16 steps at once, and of
the last ones when nothing runs. Counts of a version (`unroll_model_…_total`,
`unroll_message_tokens`) begin anew when that version is replaced, and end with it.

With several workers (`--workers`) the page is one of all: counters and histograms are sums, which
keep what a worker had counted that ended; so are gauges of what is under way or held, `process_…`
too. Facts that all share (`unroll_model_loaded`, `unroll_build_info`, `unroll_usable_cores`, …)
stand once. `unroll_worker_…` are there with several workers alone, and only they have the label
`worker`.

| name | type | labels | unit | meaning | compare |
|---|---|---|---|---|---|
"""


class _Engine:
    """What an EngineThread needs to be made."""


def reported_everything() -> Metrics:
    """Metrics that have heard of each thing there is, so that each has its labels."""
    metrics = Metrics(CollectorRegistry())
    model = replace(card("letters", "generate"), state=(HIDDEN,))
    statistics = ModelStatistics()
    steps = GenerateMetrics(metrics, "letters", statistics, 8)
    steps.began(0.0, True)
    steps.first_token(0.0)
    steps.stepped(1, 0, 1, 0.0, 0.0, followed=1)
    steps.answered(0.0, 0.0)
    steps.prefix_found(1)
    steps.finished(FinishReason.END, 1, 1)
    steps.idle()
    frames = FrameMetrics(metrics, "letters", statistics, 8)
    frames.framed([0.0], 1, 1)
    frames.idle()
    BatchMetrics(metrics, "letters", "score", statistics, 8).batch_ran(1, 1, 0.0)
    metrics.request_ended("letters", "Generate", "RESOURCE_EXHAUSTED", 0.0, QueueFull("", 0.5))
    metrics.request_ended("letters", "Generate", "CANCELLED", 0.0, None)
    metrics.loads.labels("letters", "loaded").inc()
    metrics.load_seconds.labels("letters").observe(0.0)
    metrics.live_versions.labels("letters").set(1)
    metrics.constraint_found("hit")
    metrics.constraint_compiled(0.0)
    metrics.report_build("", "", "")
    metrics.report_models([model], [RefusedModel("tags", "1", "")], rows=8)
    thread = EngineThread("letters", "generate", _Engine(), 1, lambda _: None, lambda: None)
    served = type("Model", (), {"card": model})()
    metrics.watch_memory(MemoryBudget(1), OverloadManager(1, 1.0, int, bool, int, float))
    metrics.watch_prefixes(PrefixCache(1))
    metrics.served.show([ServedVersion(served, statistics, [thread])])
    workers = WorkerMetrics(MergedMetrics(CollectorRegistry(), metrics.registry), metrics.registry)
    for gauge in (workers.up, workers.requests, workers.memory):
        gauge.labels("0").set(0)
    workers.restarted(0)
    return metrics


def page() -> str:
    """Raises SystemExit, naming it, for a metric that has no sample or no unit."""
    return HEAD + "".join(map(_row, reported_everything().registry.collect()))


def name_of(family: Metric) -> str:
    """As it is scraped, without what a histogram adds."""
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def _row(family: Metric) -> str:
    name = name_of(family)
    if not family.samples:
        sys.exit(f"{name} has no sample; have reported_everything() report it")
    labels = dict.fromkeys(key for s in family.samples for key in s.labels if key != "le")
    named = ", ".join(f"`{label}`" for label in labels) or "–"
    compare = COMPARE.get(name, "–")
    text = family.documentation
    return f"| `{name}` | {family.type} | {named} | {_unit(name)} | {text} | {compare} |\n"


def _unit(name: str) -> str:
    if name in FACTS:
        return "1 or 0"
    if name in UNITS:
        return UNITS[name]
    stem = name.removesuffix("_total")
    unit = next((unit for end, unit in SUFFIXES.items() if stem.endswith(end)), "")
    return unit or sys.exit(f"{name} says no unit; add it to UNITS")


def names() -> set[str]:
    """Of every series that is scraped."""
    return {
        sample.name
        for family in reported_everything().registry.collect()
        for sample in family.samples
    }


def unknown(mentioned: Iterable[str]) -> list[str]:
    """Those of ``mentioned`` that are no series of the service."""
    return sorted(set(mentioned) - names())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.metrics_page")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    made = page()
    if known := {*COMPARE, *UNITS, *FACTS} - set(
        map(name_of, reported_everything().registry.collect())
    ):
        sys.exit(f"there is no {', '.join(sorted(known))}; take it out of {__file__}")
    if parser.parse_args().write:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit(f"{PAGE} differs from the metrics; run `python -m tests.metrics_page --write`")


if __name__ == "__main__":
    main()
