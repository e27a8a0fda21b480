"""The service as processes, as an operator runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

_READY = re.compile(r"ready: gRPC on port (\d+), HTTP on port (\d+)")
START_SECONDS = 60.0


class Replica:
    """One process of the service on this machine, its output in a file.

    port, http_port: 0 for free ones, which ``target`` and ``http`` then hold.
    It has answered ready once it is made. Raises RuntimeError, with its output, if it never does.
    """

    def __init__(
        self, flags: Sequence[str], log: Path, *, port: int = 0, http_port: int = 0, root: Path
    ) -> None:
        self.log = log
        addresses = (
            "--address", f"127.0.0.1:{port}", "--http-address", f"127.0.0.1:{http_port}",
        )  # fmt: skip
        command = [sys.executable, "-m", "service", "serve", *addresses, *flags]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("UNROLL_")}
        with log.open("a") as output:
            self._begin = output.tell()
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=root, env=environment
            )
        self.port, self.http_port = self._wait_until_ready()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def output(self) -> str:
        """Of this process; an earlier one may have written to the same file."""
        with self.log.open() as output:
            output.seek(self._begin)
            return output.read()

    def _wait_until_ready(self) -> tuple[int, int]:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if match := _READY.search(self.output):
                return int(match[1]), int(match[2])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the service did not start:\n{self.output}")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.http}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")

    def terminate(self) -> None:
        """SIGTERM, and no waiting."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 60.0) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
