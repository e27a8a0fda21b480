"""What `unroll top` makes of two pages of metrics, and how it leaves a terminal."""

from __future__ import annotations

import io
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from unroll import TargetInvalid
from unroll.prom_page import Page
from unroll.top import COLUMNS, Reading, metrics_urls, replicas, table, watch

URL = "http://127.0.0.1:8002/metrics"


class Replica:
    """Metrics of a server, by the names that it gives them."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        self.loaded = Gauge("unroll_model_loaded", "", ["model", "version"], registry=registry)
        self.ready = Gauge("unroll_ready", "", registry=registry)
        self.under_way = Gauge("unroll_open_requests", "", registry=registry)
        self.active = Gauge("unroll_active_rows", "", ["model"], registry=registry)
        self.waiting = Gauge("unroll_waiting_requests", "", ["model"], registry=registry)
        self.paused = Gauge("unroll_paused_streams", "", ["model"], registry=registry)
        self.capacity = Gauge("unroll_batch_capacity", "", ["model", "graph"], registry=registry)
        self.requests = Counter(
            "unroll_requests_total", "", ["model", "method", "code"], registry=registry
        )
        self.rows, self.first, self.gap, self.queue = (
            Histogram(name, "", labels, registry=registry, buckets=buckets)
            for name, labels, buckets in (
                ("unroll_batch_rows", ["model", "graph"], (1, 2, 4, 8)),
                ("unroll_time_to_first_token_seconds", ["model"], (0.01, 0.1, 1.0)),
                ("unroll_inter_token_seconds", ["model"], (0.001, 0.01)),
                ("unroll_queue_seconds", ["model"], (0.001, 0.01)),
            )
        )
        self.ready.set(1)
        for model in ("prose", "mood"):
            self.loaded.labels(model, "1").set(1)

    @property
    def text(self):
        return generate_latest(self.registry)

    def read(self, at):
        return Reading(Page.parse(self.text.decode()), at)


@pytest.fixture
def replica():
    return Replica()


def rows_of(lines):
    """By model, each as values by column; two spaces or more lie between cells."""
    start = next(number for number, line in enumerate(lines) if line.startswith("replica"))
    table = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[start:]]
    assert tuple(table[0]) == COLUMNS
    return {row[1]: row[2:] for row in table[1:] if row}


def test_a_row_tells_what_happened_between_two_readings(replica):
    replica.rows.labels("prose", "step").observe(8)  # before
    before = replica.read(10.0)
    replica.active.labels("prose").set(12)
    replica.waiting.labels("prose").set(3)
    replica.paused.labels("prose").set(1)
    replica.under_way.set(17)
    replica.capacity.labels("prose", "step").set(8)
    for rows in (2, 4, 6):
        replica.rows.labels("prose", "step").observe(rows)
    replica.rows.labels("mood", "predict").observe(2)
    for seconds in (0.05, 0.05, 0.5, 30.0):
        replica.first.labels("prose").observe(seconds)
    replica.gap.labels("prose").observe(0.0005)
    replica.requests.labels("prose", "Generate", "OK").inc(5)
    replica.requests.labels("prose", "Score", "OK").inc()
    replica.requests.labels("prose", "Generate", "UNAVAILABLE").inc()
    lines = table(replicas([URL], [before], [replica.read(12.0)]))
    assert lines[0] == "127.0.0.1:8002: ready, 17 requests under way"
    rows = rows_of(lines)
    assert rows["prose"] == [
        "12", "3", "1", "6", "-", "4.0", "50%", "100.0 ms", ">10 s", "0.5 ms", "1.0 ms", "-", "-",
        "OK 3.0, UNAVAILABLE 0.5",
    ]  # fmt: skip
    assert rows["mood"] == ["0", "0", "0", "-", "1", "2.0", *["-"] * 8]


def test_a_server_that_began_anew_is_no_step_back(replica):
    replica.requests.labels("prose", "Generate", "OK").inc(100)
    again = Replica()
    again.requests.labels("prose", "Generate", "OK").inc(2)
    rows = rows_of(table(replicas([URL], [replica.read(0.0)], [again.read(1.0)])))
    assert rows["prose"][-1] == "OK 2.0"


def test_replicas_that_are_not_ready_or_not_there_say_so(replica):
    replica.ready.set(0)
    gone = Reading(None, 0.0, "Connection refused")
    urls = [URL, "http://10.0.0.2:8002/metrics", "http://10.0.0.3:80/metrics"]
    stranger = Reading(Page.parse("up 1\n"), 0.0)
    lines = table(replicas(urls, [gone, gone, stranger], [replica.read(1.0), gone, stranger]))
    assert lines[:3] == [
        "127.0.0.1:8002: not ready, 0 requests under way",
        "10.0.0.2:8002: does not answer (Connection refused)",
        "10.0.0.3:80: answers, but is no Unroll server",
    ]
    assert rows_of(lines) == {}, "rates need two readings"


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (0.625, 3.0), (0.75, 4.0), (1.0, math.inf)],
)
def test_a_quantile_lies_in_its_bucket_by_its_share(share, value):
    counts = {"1.0": 1, "2.0": 2, "4.0": 3, "8.0": 3, "+Inf": 4}
    lines = [f'seconds_bucket{{le="{edge}",model="m"}} {count}' for edge, count in counts.items()]
    page = Page.parse("\n".join(["# TYPE seconds histogram", *lines, ""]))
    assert page.quantile(share, "seconds", model="m") == value
    assert page.quantile(share, "seconds", model="other") is None


@pytest.mark.parametrize(
    ("target", "metrics", "urls"),
    [
        ("127.0.0.1:50051", None, [URL]),
        (
            "a.example:1, [::1]:2",
            None,
            ["http://a.example:8002/metrics", "http://[::1]:8002/metrics"],
        ),
        (
            "dns:///a.example:1",
            "http://b/metrics, https://c:1/m",
            ["http://b/metrics", "https://c:1/m"],
        ),
    ],
)
def test_metrics_are_where_they_usually_are_or_where_it_is_said(target, metrics, urls):
    assert metrics_urls(target, metrics) == urls


@pytest.mark.parametrize(
    ("target", "metrics"), [("dns:///a.example:1", None), ("a:1", "a:8002"), ("a:1", "file:///etc")]
)
def test_what_says_no_place_of_metrics_is_refused(target, metrics):
    with pytest.raises(TargetInvalid):
        metrics_urls(target, metrics)


# -- over HTTP, and on a terminal ---------------------------------------------------------------


@pytest.fixture
def url(replica):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(replica.text)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    serving.join(10)
    server.server_close()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_once_is_one_table_after_one_interval(replica, url):
    out, slept = io.StringIO(), []

    def sleep(seconds):
        slept.append(seconds)
        replica.requests.labels("mood", "Classify", "OK").inc()

    assert watch([url], 0.2, True, out=out, sleep=sleep) == 0
    assert slept == [0.2]
    assert out.getvalue().count("replica ") == 1
    assert "OK" in rows_of(out.getvalue().splitlines())["mood"][-1]
    assert "\x1b" not in out.getvalue()


def test_it_fails_where_nothing_answers():
    out = io.StringIO()
    assert watch(["http://127.0.0.1:9/metrics"], 0.1, True, out=out, sleep=lambda _: None) == 1
    assert "does not answer" in out.getvalue()


def test_ctrl_c_leaves_the_terminal_as_it_was(url, monkeypatch):
    """Its own screen is left, and the cursor is there again."""
    for variable, value in {"COLUMNS": "40", "LINES": "5", "TERM": "xterm"}.items():
        monkeypatch.setenv(variable, value)
    out, left = Terminal(), [None, None, KeyboardInterrupt]

    def sleep(_):
        if interruption := left.pop(0):
            raise interruption

    assert watch([url], 1.0, out=out, sleep=sleep) == 0
    shown = out.getvalue()
    assert shown.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in shown[-20:]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    screens = shown.split("\x1b[H")
    lines = screens[-1].partition("\x1b[?")[0].rstrip("\n").split("\n")
    assert lines[1].startswith("127.0.0.1")
    assert len(lines) == 5
    assert all(len(line) <= 40 for line in lines)
    assert "prose" not in screens[-1], "what does not fit is left out"


def test_json_is_an_object_for_each_replica(replica, url):
    out, gone = io.StringIO(), "http://127.0.0.1:9/metrics"

    def sleep(_):
        replica.requests.labels("mood", "Classify", "OK").inc()
        replica.first.labels("mood").observe(30.0)

    assert watch([url, gone], 0.1, True, True, out, sleep) == 0
    found, missing = map(json.loads, out.getvalue().splitlines())
    (mood,) = (model for model in found["models"] if model["model"] == "mood")
    assert list(mood["requests_per_second"]) == ["OK"]
    assert mood["time_to_first_token_seconds"] == [None, None], "beyond the last bucket"
    assert mood["rows"] is None
    assert (missing["name"], missing["models"]) == ("127.0.0.1:9", [])
