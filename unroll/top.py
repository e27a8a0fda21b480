"""Live metrics of running servers: streams, tokens a second, batches, latency.

Reads their pages of metrics and nothing else; every rate and quantile is of the time between two
readings.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from unroll.channel import TargetInvalid, hosts_of
from unroll.prom_page import Page

HTTP_PORT = 8002
_FETCH_SECONDS = 5.0
_LEAST_INTERVAL_SECONDS = 0.1
# Names of columns; the first two and the last one are texts.
COLUMNS = (
    "replica", "model", "run", "wait", "paused", "tokens/s", "texts/s", "rows", "fill",
    "first p50", "p99", "gap p50", "p99", "queue p50", "p99", "requests/s",
)  # fmt: skip
_TEXTS = (0, 1, len(COLUMNS) - 1)
# Wider than any table: what does not fit a screen is cut, not wrapped.
_TABLE_WIDTH = 1000


@dataclass(frozen=True)
class Reading:
    """page: None where the replica did not answer, for the reason ``trouble``. at: in seconds."""

    page: Page | None
    at: float
    trouble: str = ""


def metrics_urls(target: str, metrics: str | None) -> list[str]:
    """Those given, with commas between, or the usual ones of the target's hosts.

    Raises TargetInvalid.
    """
    if metrics is None:
        return [f"http://{host}:{HTTP_PORT}/metrics" for host in hosts_of(target)]
    urls = [url.strip() for url in metrics.split(",")]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise TargetInvalid(f"metrics {url!r} is no URL such as http://HOST:PORT/metrics")
    return urls


def read(url: str) -> Reading:
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:
            text = answer.read().decode()
        return Reading(Page.parse(text), time.monotonic())
    except urllib.error.URLError as error:
        trouble = str(error.reason)
    except (OSError, ValueError) as error:
        trouble = str(error) or type(error).__name__
    return Reading(None, time.monotonic(), trouble)


Quantiles = tuple[float | None, float | None]


@dataclass(frozen=True)
class ModelRates:
    """What a model does, and did between two readings.

    running_streams: in the last step's batch. waiting_requests: for a row. paused_streams: their
    reader is behind, or their caller sends nothing. tokens_per_second: generated and tagged.
    texts_per_second: of Classify, Tag, Fill, Score and Embed. rows: mean of a step, or else of a
    batch of texts. fill: their share of what one may hold. Latencies: median and 99th percentile in
    seconds; infinite beyond the histogram's last bucket. requests_per_second: by status.
    """

    model: str
    running_streams: float
    waiting_requests: float
    paused_streams: float
    tokens_per_second: float
    texts_per_second: float
    rows: float | None
    fill: float | None
    time_to_first_token_seconds: Quantiles
    inter_token_seconds: Quantiles
    queue_seconds: Quantiles
    requests_per_second: dict[str, float]


@dataclass(frozen=True)
class Replica:
    """models: none before the second reading, since rates need two."""

    name: str
    health: str
    models: list[ModelRates] = field(default_factory=list)


def replicas(
    urls: Sequence[str], before: Sequence[Reading], now: Sequence[Reading]
) -> list[Replica]:
    """What each server does, from two readings of each."""
    found = []
    for url, earlier, later in zip(urls, before, now, strict=True):
        rates = []
        if earlier.page and later.page:
            grown, seconds = later.page.since(earlier.page), later.at - earlier.at
            rates = [_rates(model, later.page, grown, seconds) for model in _models(later.page)]
        found.append(Replica(urlsplit(url).netloc, _health(later), rates))
    return found


def _health(reading: Reading) -> str:
    page = reading.page
    if page is None:
        return f"does not answer ({reading.trouble})"
    if "unroll_requests_total" not in page.samples and not _models(page):
        return "answers, but is no Unroll server"
    ready = "" if "unroll_ready" not in page.samples else "ready"
    if ready and not page.sum("unroll_ready"):
        ready = "not ready"
    under_way = f"{page.sum('unroll_open_requests'):,.0f} requests under way"
    return f"{ready}, {under_way}" if ready else "answers"


def _models(page: Page) -> list[str]:
    return list(page.by("unroll_model_loaded", "model"))


def _rates(model: str, page: Page, grown: Page, seconds: float) -> ModelRates:
    """grown: what was added to the page's values in so many seconds."""

    def now(name: str) -> float:
        return page.sum(name, model=model)

    def rate(name: str, **labels: str) -> float:
        return grown.sum(name, model=model, **labels) / seconds

    def quantiles(histogram: str) -> Quantiles:
        median, high = (grown.quantile(share, histogram, model=model) for share in (0.5, 0.99))
        return median, high

    graph = "step" if rate("unroll_batch_rows_count", graph="step") else "predict"
    batches = grown.sum("unroll_batch_rows_count", model=model, graph=graph)
    rows = grown.sum("unroll_batch_rows_sum", model=model, graph=graph) / batches if batches else 0
    capacity = page.sum("unroll_batch_capacity", model=model, graph=graph)
    codes = grown.by("unroll_requests_total", "code", model=model)
    return ModelRates(
        model,
        running_streams=now("unroll_active_rows"),
        waiting_requests=now("unroll_waiting_requests"),
        paused_streams=now("unroll_paused_streams"),
        tokens_per_second=rate("unroll_batch_rows_sum", graph="step"),
        texts_per_second=sum(
            rate("unroll_batch_rows_sum", graph=graph) for graph in ("predict", "score")
        ),
        rows=rows or None,
        fill=rows / capacity if rows and capacity else None,
        time_to_first_token_seconds=quantiles("unroll_time_to_first_token_seconds"),
        inter_token_seconds=quantiles("unroll_inter_token_seconds"),
        queue_seconds=quantiles("unroll_queue_seconds"),
        requests_per_second={code: n / seconds for code, n in codes.items() if n},
    )


# -- as text ---------------------------------------------------------------------------------------


def table(found: Sequence[Replica]) -> list[str]:
    """Lines: the health of each replica, then a row for each model of each."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(COLUMNS):
        made.add_column(name, justify="left" if number in _TEXTS else "right", no_wrap=True)
    for replica in found:
        for rates in replica.models:
            made.add_row(*map(Text, (replica.name, *_cells(rates))))
    console = Console(width=_TABLE_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(made)
    rows = [line.rstrip() for line in captured.get().splitlines()]
    return [*(f"{replica.name}: {replica.health}" for replica in found), "", *rows]


def _cells(rates: ModelRates) -> tuple[str, ...]:
    latencies = (rates.time_to_first_token_seconds, rates.inter_token_seconds, rates.queue_seconds)
    codes = rates.requests_per_second
    return (
        rates.model,
        f"{rates.running_streams:,.0f}",
        f"{rates.waiting_requests:,.0f}",
        f"{rates.paused_streams:,.0f}",
        _number(rates.tokens_per_second),
        _number(rates.texts_per_second),
        f"{rates.rows:.1f}" if rates.rows else "-",
        f"{rates.fill:.0%}" if rates.fill else "-",
        *(_time(seconds) for quantiles in latencies for seconds in quantiles),
        ", ".join(f"{code} {n:.1f}" for code, n in codes.items()) or "-",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value else "-"


def _time(seconds: float | None) -> str:
    """In as many digits as are known of it."""
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return ">10 s"
    if seconds >= 1.0:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.1f} ms"


# -- over time -------------------------------------------------------------------------------------


def watch(
    urls: Sequence[str],
    interval: float,
    is_once: bool = False,
    is_json: bool = False,
    out: TextIO | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """A table every ``interval`` seconds, until Ctrl-C or, once, the first.

    is_json: an object a replica instead. out: standard output by default; a terminal is redrawn,
    unless JSON or a single table goes there.

    Returns 1 where none of the replicas answered at the end, else 0.
    """
    out = out or sys.stdout
    interval = max(interval, _LEAST_INTERVAL_SECONDS)
    is_live = out.isatty() and not (is_once or is_json)
    with ThreadPoolExecutor(len(urls)) as pool, _screen(out, is_live, is_json) as show:
        before = list(pool.map(read, urls))
        now = before
        try:
            while True:
                sleep(interval)
                now = list(pool.map(read, urls))
                show(replicas(urls, before, now))
                if is_once:
                    break
                before = now
        except KeyboardInterrupt:
            pass
    return 0 if any(reading.page for reading in now) else 1


@contextmanager
def _screen(
    out: TextIO, is_live: bool, is_json: bool
) -> Iterator[Callable[[Sequence[Replica]], None]]:
    """What shows replicas: on a screen of their own, or one after the other."""

    def lines(found: Sequence[Replica]) -> list[str]:
        return [time.strftime("%H:%M:%S"), *table(found)]

    if is_json:
        yield lambda found: print(*map(_as_json, found), sep="\n", file=out, flush=True)
    elif not is_live:
        yield lambda found: print(*lines(found), "", sep="\n", file=out, flush=True)
    else:
        with Live(console=Console(file=out), screen=True, auto_refresh=False) as live:
            yield lambda found: live.update(
                Text("\n".join(lines(found)), no_wrap=True, overflow="crop"), refresh=True
            )


def _as_json(replica: Replica) -> str:
    content = {"unix_seconds": round(time.time(), 3), **asdict(replica)}
    return json.dumps(_finite(content), ensure_ascii=False)


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(of_it) for key, of_it in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(of_it) for of_it in value]
    return None if isinstance(value, float) and math.isinf(value) else value
