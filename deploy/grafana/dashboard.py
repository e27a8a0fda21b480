"""Writes dashboard.json: what Grafana shows of the service, a row for each question.

python -m deploy.grafana.dashboard [--write]    without --write: finds whether the file differs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("dashboard.json")

COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Of the replicas that are chosen, and of the models among what they serve.
HERE = 'instance=~"$instance"'
MODEL = f'{HERE}, model=~"$model"'
HIT = f'{MODEL}, outcome="hit"'


@dataclass(frozen=True)
class Query:
    """legend: with labels in double braces."""

    expression: str
    legend: str = ""
    format: str = "time_series"


@dataclass(frozen=True)
class Panel:
    """width: of 24 columns. unit: by Grafana's names. text: what it means."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    text: str = ""
    kind: str = "timeseries"
    width: int = 8
    height: int = 7


def rate(metric: str, labels: str = MODEL) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(share: float, metric: str, by: str, labels: str = MODEL) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) ({rate(metric + '_bucket', labels)}))"


def quantiles(metric: str, by: str = "model", labels: str = MODEL) -> list[Query]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return [
        Query(quantile(share, metric, by, labels), f"{legend} p{share * 100:g}")
        for share in (0.5, 0.99)
    ]


def mean(metric: str, by: str) -> str:
    """Of a histogram or a summary."""
    return (
        f"sum by ({by}) ({rate(metric + '_sum')}) / (sum by ({by}) ({rate(metric + '_count')}) > 0)"
    )


def summed(metric: str, by: str, labels: str = MODEL) -> Query:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return Query(f"sum by ({by}) ({metric}{{{labels}}})", legend)


def per_second(metric: str, by: str, labels: str = MODEL) -> Query:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return Query(f"sum by ({by}) ({rate(metric, labels)})", legend)


def stat(title: str, expression: str, unit: str = "short", text: str = "") -> Panel:
    return Panel(title, [Query(expression)], unit, text, kind="stat", width=4, height=4)


ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        stat("Replicas ready", f"sum(unroll_ready{{{HERE}}})"),
        stat("Requests under way", f"sum(unroll_open_requests{{{HERE}}})"),
        stat("Requests", f"sum({rate('unroll_requests_total')})", "reqps"),
        stat("Tokens delivered", f"sum({rate('unroll_message_tokens_sum')})", "cps"),
        stat("First token, p99", quantile(0.99, "unroll_time_to_first_token_seconds", "job"), "s"),
        stat(
            "Rows in use",
            f"sum(unroll_active_rows{{{MODEL}}}) / sum(unroll_row_capacity{{{MODEL}}})",
            "percentunit",
        ),
    ],
    "Traffic": [
        Panel("Requests by method", [per_second("unroll_requests_total", "method")], "reqps"),
        Panel("Requests by status", [per_second("unroll_requests_total", "code")], "reqps"),
        Panel("Requests by model", [per_second("unroll_requests_total", "model")], "reqps"),
        Panel(
            "Refused, by reason",
            [per_second("unroll_rejected_total", "reason")],
            "reqps",
            "queue_full: more load than rows; stopping: clients go elsewhere; invalid, not_found, "
            "unauthenticated: the callers' own.",
        ),
        Panel(
            "Given up, by reason",
            [per_second("unroll_cancelled_total", "reason")],
            "reqps",
            "caller_left, deadline, reader_stalled.",
        ),
        Panel(
            "Tokens delivered and read",
            [
                per_second("unroll_message_tokens_sum", "model"),
                Query(
                    f"sum by (model, direction) ({rate('unroll_tokens_total')})",
                    "{{model}} {{direction}}, of finished requests",
                ),
            ],
            "cps",
        ),
    ],
    "Latency": [
        Panel(
            "Time to first token",
            quantiles("unroll_time_to_first_token_seconds"),
            "s",
            "From a request's arrival to its first token, in the service.",
        ),
        Panel(
            "Between two tokens",
            quantiles("unroll_inter_token_seconds"),
            "s",
            "As the engine makes them; what the network adds is not in it.",
        ),
        Panel("Whole requests", quantiles("unroll_request_seconds", "method"), "s"),
        Panel("In the queue", quantiles("unroll_queue_seconds"), "s"),
        Panel(
            "Computing",
            quantiles("unroll_compute_seconds"),
            "s",
            "Time of the steps or batches that a request took part in.",
        ),
        Panel(
            "First tokens later than 0.25 s",
            [
                Query(
                    f"model:unroll_first_token_late:ratio_rate{window}", f"{{{{model}}}} {window}"
                )
                for window in ("5m", "1h", "6h")
            ],
            "percentunit",
            "The objective is 1 %.",
        ),
        Panel(
            "Time to first token, spread",
            [
                Query(
                    f"sum by (le) ({rate('unroll_time_to_first_token_seconds_bucket')})",
                    "{{le}}",
                    "heatmap",
                )
            ],
            "s",
            kind="heatmap",
            width=12,
        ),
        Panel(
            "Between two tokens, spread",
            [
                Query(
                    f"sum by (le) ({rate('unroll_inter_token_seconds_bucket')})",
                    "{{le}}",
                    "heatmap",
                )
            ],
            "s",
            kind="heatmap",
            width=12,
        ),
    ],
    "Batching": [
        Panel(
            "Rows of a batch, mean",
            [Query(mean("unroll_batch_rows", "model, graph"), "{{model}} {{graph}}")],
        ),
        Panel(
            "Batch fill",
            [Query("model_graph:unroll_batch_fill:ratio_rate5m", "{{model}} {{graph}}")],
            "percentunit",
            "Rows of a batch, of those that it could hold.",
        ),
        Panel(
            "Time of a step or batch, mean",
            [Query(mean("unroll_batch_seconds", "model, graph"), "{{model}} {{graph}}")],
            "s",
            "Of a step with the prefill before it.",
        ),
        Panel("Decode step", quantiles("unroll_decode_seconds"), "s", "Without any prefill."),
        Panel("Prefill run", quantiles("unroll_prime_seconds"), "s"),
        Panel("Tokens prefilled", [per_second("unroll_primed_tokens_total", "model")], "cps"),
        Panel(
            "Tokens a message, mean",
            [
                Query(mean("unroll_message_tokens", "model"), "{{model}}"),
                Query(
                    f"max by (model, engine) (unroll_engine_tokens_per_message{{{MODEL}}})",
                    "{{model}} {{engine}}: now",
                ),
            ],
            text="More than one: sending takes processor time from the engine, so tokens go "
            "together.",
        ),
        Panel(
            "Batches and steps",
            [per_second("unroll_batch_rows_count", "model, graph")],
            "ops",
        ),
        Panel(
            "Event loop, late by",
            quantiles("unroll_event_loop_lag_seconds", "instance", HERE),
            "s",
        ),
    ],
    "Streams": [
        Panel(
            "Rows in use, of all",
            [
                summed("unroll_active_rows", "model"),
                Query(f"sum by (model) (unroll_row_capacity{{{MODEL}}})", "{{model}}: capacity"),
            ],
        ),
        Panel("Waiting for a row", [summed("unroll_waiting_requests", "instance, model")]),
        Panel(
            "Paused",
            [summed("unroll_paused_streams", "model")],
            text="Until their readers catch up or their callers send more.",
        ),
        Panel(
            "Work of engines, of what they take",
            [Query("model_engine:unroll_engine_work:ratio", "{{model}} {{engine}}")],
            "percentunit",
            "At 100 % requests are refused.",
        ),
        Panel("Ended, by reason", [per_second("unroll_streams_finished_total", "reason")], "cps"),
        Panel(
            "Handed over and resumed",
            [
                Query(
                    "sum(increase(unroll_streams_finished_total"
                    f'{{{MODEL}, reason="handed_over"}}[$__rate_interval]))',
                    "handed over",
                ),
                Query(
                    f"sum(increase(unroll_streams_resumed_total{{{MODEL}}}[$__rate_interval]))",
                    "resumed",
                ),
            ],
        ),
        Panel("Tokens read by a request", quantiles("unroll_request_input_tokens")),
        Panel("Tokens delivered by a request", quantiles("unroll_request_output_tokens")),
        Panel("Open sequences", [summed("unroll_open_sequences", "instance", HERE)]),
    ],
    "Prefixes and named states": [
        Panel(
            "Prompts found in the prefix cache",
            [
                Query(
                    f"sum by (model) ({rate('unroll_prefix_cache_lookups_total', HIT)}) / "
                    f"(sum by (model) ({rate('unroll_prefix_cache_lookups_total')}) > 0)",
                    "{{model}}",
                )
            ],
            "percentunit",
            "Of prompts and sources that were looked up: some of one was known.",
        ),
        Panel(
            "Tokens saved, of all",
            [
                Query(
                    f"sum by (model) ({rate('unroll_prefix_cache_tokens_total')}) / "
                    f"(sum by (model) ({rate('unroll_prefix_cache_tokens_total')}) + "
                    f"sum by (model) ({rate('unroll_primed_tokens_total')}) > 0)",
                    "{{model}}",
                )
            ],
            "percentunit",
            "Tokens that the cache knew, of those and the ones that prefill read.",
        ),
        Panel("Tokens saved", [per_second("unroll_prefix_cache_tokens_total", "model")], "cps"),
        Panel(
            "Prefix cache",
            [
                Query(f"unroll_prefix_cache_bytes{{{HERE}}}", "{{instance}}"),
                Query(f"unroll_prefix_cache_limit_bytes{{{HERE}}}", "{{instance}}: limit"),
            ],
            "bytes",
            "It gives way to what requests need.",
        ),
        Panel(
            "States evicted",
            [per_second("unroll_prefix_cache_evictions_total", "instance", HERE)],
            "ops",
            "With few hits and a full cache: prompts have less in common than it holds.",
        ),
        Panel(
            "States held",
            [
                Query(f"unroll_prefix_cache_states{{{HERE}}}", "{{instance}}: of prefixes"),
                Query(f"unroll_named_states{{{HERE}}}", "{{instance}}: named, in memory"),
            ],
        ),
    ],
    "Models": [
        Panel(
            "States",
            [Query(f"unroll_model_state{{{MODEL}}}", format="table")],
            kind="table",
            width=12,
        ),
        Panel(
            "Served",
            [Query(f"unroll_model_loaded{{{MODEL}}}", format="table")],
            kind="table",
            width=12,
        ),
        Panel(
            "Calls by version",
            [per_second("unroll_model_calls_total", "model, version, outcome")],
            "reqps",
        ),
        Panel(
            "Inputs and batches by version",
            [
                Query(
                    f"sum by (model, version) ({rate('unroll_model_inferences_total')})",
                    "{{model}} {{version}}: inputs",
                ),
                Query(
                    f"sum by (model, version) ({rate('unroll_model_executions_total')})",
                    "{{model}} {{version}}: batches and steps",
                ),
            ],
            "ops",
        ),
        Panel(
            "Where calls spend their time",
            [per_second("unroll_model_phase_seconds_total", "model, phase")],
            "s",
            "Seconds a second; success and fail are whole calls.",
        ),
        Panel(
            "Loads",
            [
                Query(
                    f"sum by (model, outcome) (unroll_model_loads_total{{{MODEL}}})",
                    "{{model}} {{outcome}}",
                )
            ],
        ),
        Panel(
            "Time to load, mean",
            [
                Query(
                    f"sum by (model) (unroll_model_load_seconds_sum{{{MODEL}}}) / "
                    f"sum by (model) (unroll_model_load_seconds_count{{{MODEL}}})",
                    "{{model}}",
                )
            ],
            "s",
        ),
        Panel(
            "Size of bundles and of rows",
            [
                Query(
                    f"max by (model, version) (unroll_model_bundle_bytes{{{MODEL}}})",
                    "{{model}} {{version}}: bundle",
                ),
                Query(
                    f"max by (model, version) (unroll_model_state_bytes{{{MODEL}}})",
                    "{{model}} {{version}}: rows",
                ),
            ],
            "bytes",
        ),
        Panel(
            "Same bits in any batch",
            [
                Query(
                    f"min by (model, fingerprint) (unroll_batch_invariant{{{MODEL}}})", "{{model}}"
                )
            ],
            text="1: the probe at load found it so. Fingerprints that differ between replicas: "
            "resume tokens are good on their own replica alone.",
        ),
    ],
    "Resources": [
        Panel(
            "Processor, of the usable cores",
            [Query(f"instance:unroll_cpu:ratio_rate5m{{{HERE}}}", "{{instance}}")],
            "percentunit",
        ),
        Panel(
            "Memory, of the limit",
            [Query(f"instance:unroll_memory:ratio{{{HERE}}}", "{{instance}}")],
            "percentunit",
        ),
        Panel(
            "Memory",
            [
                Query(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}"),
                Query(f"unroll_memory_limit_bytes{{{HERE}}}", "{{instance}}: limit"),
            ],
            "bytes",
        ),
        Panel(
            "Callers' data, of its budget",
            [
                Query(f"unroll_memory_budget_used_bytes{{{HERE}}}", "{{instance}}: {{kind}}"),
                Query(f"unroll_memory_budget_bytes{{{HERE}}}", "{{instance}}: budget"),
            ],
            "bytes",
        ),
        Panel(
            "Overload stage",
            [Query(f"unroll_overload_stage{{{HERE}}}", "{{instance}}")],
            text="1: no new streams; 2: small buffers too; 3: nothing new.",
        ),
        Panel(
            "Open files",
            [Query(f'process_open_fds{{{HERE}, job="unroll"}}', "{{instance}}")],
        ),
        Panel(
            "Garbage collections",
            [per_second("python_gc_collections_total", "instance, generation", HERE)],
            "ops",
        ),
        Panel(
            "Time of a scrape",
            [Query(f'scrape_duration_seconds{{{HERE}, job="unroll"}}', "{{instance}}")],
            "s",
        ),
    ],
    "Lifecycle": [
        Panel(
            "Up and ready",
            [
                Query(f'up{{{HERE}, job="unroll"}}', "{{instance}}: up"),
                Query(f"unroll_ready{{{HERE}}}", "{{instance}}: ready"),
            ],
        ),
        Panel(
            "Runs since",
            [Query(f'time() - process_start_time_seconds{{{HERE}, job="unroll"}}', "{{instance}}")],
            "s",
        ),
        Panel(
            "Certificate, days left",
            [
                Query(
                    f"(unroll_tls_certificate_expiry_timestamp_seconds{{{HERE}}} > bool 0) * "
                    f"(unroll_tls_certificate_expiry_timestamp_seconds{{{HERE}}} - time()) / 86400",
                    "{{instance}}",
                )
            ],
            text="0 without TLS.",
        ),
        Panel(
            "Reloads that failed",
            [
                Query(
                    f"increase(unroll_reload_failures_total{{{HERE}}}[$__rate_interval])",
                    "{{instance}} {{files}}",
                )
            ],
        ),
        Panel(
            "Alerts",
            [Query('ALERTS{alertname=~"Unroll.*"}', format="table")],
            kind="table",
        ),
        Panel("Builds", [Query(f"unroll_build_info{{{HERE}}}", format="table")], kind="table"),
    ],
}


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_row(len(panels) + 1, title, top))
        top += 1
        left = line = 0
        for panel in row:
            if left + panel.width > COLUMNS:
                left, top, line = 0, top + line, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append(_panel(len(panels) + 1, panel, place))
            left, line = left + panel.width, max(line, panel.height)
        top += line
    return {
        "title": "Unroll",
        "uid": "unroll",
        "description": "Traffic, latency, batches, streams, prefixes, states, models, resources "
        "and lifecycle of Unroll's replicas. RUNBOOK.md says how to read it.",
        "tags": ["unroll"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_restarts()]},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        _variable("instance", "Replica", "label_values(unroll_ready, instance)"),
        _variable(
            "model", "Model", 'label_values(unroll_model_state{instance=~"$instance"}, model)'
        ),
    ]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    """One whose "All" takes what has no such label as well: calls of no known model."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _restarts() -> dict[str, Any]:
    return {
        "name": "Starts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": f'changes(process_start_time_seconds{{{HERE}, job="unroll"}}[1m]) > 0',
        "titleFormat": "{{instance}} started",
    }


def _row(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place_of),
                "datasource": SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "format": query.format,
                "instant": query.format == "table" or panel.kind == "stat",
                "range": query.format != "table" and panel.kind != "stat",
            }
            for place_of, query in enumerate(panel.queries)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.dashboard")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    made = json.dumps(dashboard(), indent=1) + "\n"
    if parser.parse_args().write:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit(f"{PAGE.name} differs; run `python -m deploy.grafana.dashboard --write`")


if __name__ == "__main__":
    main()
