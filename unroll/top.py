"""What running servers do, a table a moment: streams, tokens a second, batches, latency.

Reads their pages of metrics and nothing else; every rate and quantile is of the time between two
readings.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO
from urllib.parse import urlsplit

from unroll.channel import TargetInvalid, hosts_of
from unroll.prom_page import Page

HTTP_PORT = 8002
_FETCH_SECONDS = 5.0
_LEAST_INTERVAL_SECONDS = 0.1
# Names of columns; the first two are texts, and the last one takes what is left of a line.
COLUMNS = (
    "replica", "model", "run", "wait", "paused", "tokens/s", "texts/s", "rows", "fill",
    "first p50", "p99", "gap p50", "p99", "queue p50", "p99", "requests/s",
)  # fmt: skip
_TEXTS = (0, 1, len(COLUMNS) - 1)
# Of a terminal: another screen without a cursor, and back; to its corner; away with what is left.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


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


def table(urls: Sequence[str], before: Sequence[Reading], now: Sequence[Reading]) -> list[str]:
    """Lines: how the replicas are, then a row for each model of each."""
    heads: list[str] = []
    rows: list[tuple[str, ...]] = [COLUMNS]
    for url, earlier, later in zip(urls, before, now, strict=True):
        name = urlsplit(url).netloc
        heads.append(f"{name}: {_health(later)}")
        if earlier.page and later.page:
            grown, seconds = later.page.since(earlier.page), later.at - earlier.at
            for model in _models(later.page):
                rows.append((name, *_row(model, later.page, grown, seconds)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [*heads, "", *(_line(row, widths) for row in rows)]


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


def _row(model: str, page: Page, grown: Page, seconds: float) -> tuple[str, ...]:
    """model: its name. grown: what was added to the page's values in so many seconds."""

    def rate(name: str, **labels: str) -> float:
        return grown.sum(name, model=model, **labels) / seconds

    def quantiles(histogram: str) -> list[str]:
        return [_time(grown.quantile(share, histogram, model=model)) for share in (0.5, 0.99)]

    texts = sum(rate("unroll_batch_rows_sum", graph=graph) for graph in ("predict", "score"))
    graph = "step" if rate("unroll_batch_rows_count", graph="step") else "predict"
    batches = grown.sum("unroll_batch_rows_count", model=model, graph=graph)
    rows = grown.sum("unroll_batch_rows_sum", model=model, graph=graph) / batches if batches else 0
    capacity = page.sum("unroll_batch_capacity", model=model, graph=graph)
    codes = grown.by("unroll_requests_total", "code", model=model)
    return (
        model,
        *(
            f"{page.sum(name, model=model):,.0f}"
            for name in ("unroll_active_rows", "unroll_waiting_requests", "unroll_paused_streams")
        ),
        _number(rate("unroll_batch_rows_sum", graph="step")),
        _number(texts),
        f"{rows:.1f}" if rows else "-",
        f"{rows / capacity:.0%}" if rows and capacity else "-",
        *quantiles("unroll_time_to_first_token_seconds"),
        *quantiles("unroll_inter_token_seconds"),
        *quantiles("unroll_queue_seconds"),
        ", ".join(f"{code} {n / seconds:.1f}" for code, n in codes.items() if n) or "-",
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


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if number in _TEXTS else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def watch(
    urls: Sequence[str],
    interval: float,
    is_once: bool = False,
    out: TextIO | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """A table every ``interval`` seconds, until Ctrl-C or, once, the first.

    Returns 1 where none of the replicas answered at the end, else 0.
    """
    out = out or sys.stdout
    interval = max(interval, _LEAST_INTERVAL_SECONDS)
    is_live = out.isatty() and not is_once
    with ThreadPoolExecutor(len(urls)) as pool, _screen(out, is_live) as show:
        before = list(pool.map(read, urls))
        now = before
        try:
            while True:
                sleep(interval)
                now = list(pool.map(read, urls))
                show([time.strftime("%H:%M:%S"), *table(urls, before, now)])
                if is_once:
                    break
                before = now
        except KeyboardInterrupt:
            pass
    return 0 if any(reading.page for reading in now) else 1


@contextmanager
def _screen(out: TextIO, is_live: bool) -> Iterator[Callable[[Sequence[str]], None]]:
    """What shows lines: on a screen of their own, or one after the other."""

    def print_lines(lines: Sequence[str]) -> None:
        print(*lines, "", sep="\n", file=out, flush=True)

    def redraw(lines: Sequence[str]) -> None:
        columns, height = shutil.get_terminal_size()
        shown = [line[:columns] + _CLEAR_LINE for line in lines[: height - 1]]
        out.write(_HOME + "\n".join(shown) + _CLEAR_BELOW)
        out.flush()

    if not is_live:
        yield print_lines
        return
    out.write(_ENTER)
    try:
        yield redraw
    finally:
        out.write(_LEAVE)
        out.flush()
