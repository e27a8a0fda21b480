"""A real Prometheus with its Alertmanager over the files in deploy/prometheus, made fast."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.ops.proxies import free_ports

FILES = Path("deploy/prometheus")
# So that a test need not last as long as an incident: intervals, windows and delays are cut;
# what is queried and compared stays as it is.
SCRAPE = "200ms"
_FASTER = {
    "prometheus.yml": [(r"_interval: \w+", f"_interval: {SCRAPE}")],
    "recording.yml": [
        (r"\[5m\]", "[5s]"), (r"\[30m\]", "[8s]"), (r"\[1h\]", "[10s]"), (r"\[6h\]", "[15s]"),
    ],
    "alerts.yml": [(r"for: \w+", "for: 1s"), (r"\[(5|10|15|30)m\]", "[10s]")],
    "alertmanager.yml": [
        (r"group_wait: \w+", "group_wait: 0s"), (r"group_interval: \w+", "group_interval: 1s"),
    ],
}  # fmt: skip
START_SECONDS = 30.0


def faster_copy(folder: Path, replacements: Sequence[tuple[str, str]] = ()) -> Path:
    """A copy of deploy/prometheus in ``folder``, made faster; further texts are replaced, too."""
    copy = Path(shutil.copytree(FILES, folder / "prometheus"))
    for name, changes in _FASTER.items():
        text = (copy / name).read_text()
        for pattern, instead in changes:
            text, count = re.subn(pattern, instead, text)
            assert count, f"{name} has no {pattern}"
        for old, new in replacements:
            text = text.replace(old, new)
        (copy / name).write_text(text)
    return copy


class Webhook:
    """Keeps each alert that is sent to it, with when that was."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.heard += [(time.monotonic(), alert) for alert in body["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def alert(self, name: str, status: str, **labels: str) -> tuple[float, dict[str, Any]] | None:
        """When the first one of this kind came, and what it says."""
        wanted = {"alertname": name, **labels}
        return next(
            (
                (at, alert)
                for at, alert in list(self.heard)
                if alert["status"] == status and wanted.items() <= alert["labels"].items()
            ),
            None,
        )

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Monitoring:
    """Prometheus and Alertmanager as processes, and the webhook that alerts go to."""

    def __init__(
        self, prometheus: str, alertmanager: str, targets: Sequence[str], folder: Path
    ) -> None:
        self.webhook = Webhook()
        port, alert_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self.folder = faster_copy(
            folder,
            [
                ("127.0.0.1:9093", f"127.0.0.1:{alert_port}"),
                ("127.0.0.1:9099", self.webhook.address),
            ],
        )
        self.aim(targets)
        self._processes = [
            self._start(
                alertmanager,
                f"--config.file={self.folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alert_port}",
                "--cluster.listen-address=",
            ),
            self._start(
                prometheus,
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ),
        ]
        try:
            wait_until(lambda: self._answers("/-/ready"), START_SECONDS, "Prometheus is ready")
        except BaseException:
            self.stop()
            raise

    def aim(self, targets: Sequence[str]) -> None:
        """Scrape these replicas, HOST:PORT each; a running Prometheus reads it by itself."""
        (self.folder / "targets" / "replicas.yml").write_text(
            json.dumps([{"targets": list(targets)}])
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples it answers with now. Raises AssertionError with its error."""
        question = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(question, timeout=10) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        return list(answer["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its health and its last error."""
        with urllib.request.urlopen(f"{self.url}/api/v1/rules", timeout=10) as reply:
            groups = json.load(reply)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def has_data(self, expression: str) -> bool:
        """Whether it answers with a number, and not only with NaN."""
        values = [float(sample["value"][1]) for sample in self.query(expression)]
        return any(math.isfinite(value) for value in values)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
        self.webhook.stop()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{Path(command[0]).name}.log"
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        with log.open("w") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


def wait_until(is_so: Callable[[], object], seconds: float, what: str) -> float:
    """Seconds that it took. Raises AssertionError, naming ``what``."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began
