"""Servers as processes of their own: started, watched through /proc, and always ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 40.0  # the service lets running calls end for up to 30 s
_READY = "gRPC on port "


class Server:
    """A server process that is ready; ``with`` ends it.

    what: its name in the tables. target: HOST:PORT. start_seconds: from the start of the
    process to the line with its port. ready_rss_bytes: what was resident then.

    Raises RuntimeError when the process ends before it is ready.
    """

    def __init__(self, what: str, command: Sequence[str]) -> None:
        self.what = what
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None, "stdout is a pipe"
        self._output = self._process.stdout
        # A pipe that nobody reads fills up and stops the server that logs into it.
        self._reader = threading.Thread(target=deque, args=(self._output, 0), daemon=True)
        try:
            port = self._wait_for_port()
            self.start_seconds = time.perf_counter() - started
            self.ready_rss_bytes = self.memory_bytes()[0]
            self._reader.start()
        except BaseException:
            self.stop()
            raise
        self.target = f"127.0.0.1:{port}"

    def _wait_for_port(self) -> int:
        said: deque[str] = deque(maxlen=20)
        for line in self._output:
            if _READY in line:
                return int(line.split(_READY)[1].split(",")[0])
            said.append(line)
        raise RuntimeError(f"{self.what} ended before it was ready:\n{''.join(said)}")

    @property
    def _proc(self) -> Path:
        return Path(f"/proc/{self._process.pid}")

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far (proc(5), fields 14, 15 of stat)."""
        fields = (self._proc / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_bytes(self) -> tuple[int, int]:
        """(resident set, proportional set): the second shares out pages of other processes."""
        lines = (self._proc / "smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(rest.split()[0]) * 1024 for name, rest in _fields(lines)}
        return sizes["Rss"], sizes["Pss"]

    def stop(self) -> None:
        """End the process; by force if it does not end by itself."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader.ident:
            self._reader.join()
        self._output.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _fields(lines: Sequence[str]) -> list[list[str]]:
    return [line.split(":", 1) for line in lines]


def start_service(
    models: Path, precision: str = "fp32", queue: int | None = None, device: str = "cpu"
) -> Server:
    """The service with its defaults; fp32 is the default precision.

    queue: how many requests may wait for a model, None for the default.
    """
    command = ["service", "serve", "--models", str(models), "--device", device]
    command += ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    command += ["--propagation-seconds", "0"]
    # The bench's callers share one connection.
    command += ["--max-calls-per-connection", "2048"]
    if precision != "fp32":
        command += ["--precision", precision]
    if queue is not None:
        command += ["--max-queue", str(queue)]
    return Server(f"unroll {precision}", command)


def start_peer(bundle: Path, streams: int) -> Server:
    """One loop a request, with a thread for each stream and a few more."""
    workers = str(streams + 8)
    command = ["bench.peers.loop_server", "--bundle", str(bundle), "--workers", workers]
    return Server("one loop a request", command)
