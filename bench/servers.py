"""Servers as processes of their own: started, watched through /proc, and always ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

# A mapping of smaps begins with its range of addresses.
_MAPPING = re.compile(r"^(?=[0-9a-f]+-[0-9a-f]+ )", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 40.0  # the service lets running calls end for up to 30 s
_START_SECONDS = 60.0
_READY = "gRPC on port "
_MODULE = (sys.executable, "-m")


class Missing(Exception):
    """A server that cannot run here; the message says which piece is missing."""


class Server:
    """A server that is ready, with the processes it started itself; ``with`` ends it.

    what: its name in the tables. command: arguments of ``program``, by default a module of this
    interpreter and its own arguments. environment: added to this process's. port: where it is
    made to listen, for a program that prints no line with its port: it is ready once it takes
    connections there.

    target: HOST:PORT. start_seconds: from the start of the process to ready. ready_bytes: what
    was resident then, as resident_bytes() has it.

    Raises RuntimeError when the process ends before it is ready.
    """

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        *,
        program: Sequence[str] = _MODULE,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.what = what
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*program, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self._process.stdout is not None, "stdout is a pipe"
        self._output = self._process.stdout
        self._said: deque[str] = deque(maxlen=60)
        # A pipe that nobody reads fills up and stops the server that logs into it.
        self._reader = threading.Thread(target=self._said.extend, args=(self._output,), daemon=True)
        try:
            port = self._read_port() if port is None else self._wait_for(port)
            self.start_seconds = time.perf_counter() - started
            self.ready_bytes = self.resident_bytes()
            if not self._reader.ident:
                self._reader.start()
        except BaseException:
            self.stop()
            raise
        self.target = f"127.0.0.1:{port}"

    def _read_port(self) -> int:
        """From the line that says it."""
        for line in self._output:
            if _READY in line:
                return int(line.split(_READY)[1].split(",")[0])
            self._said.append(line)
        raise self._ended()

    def _wait_for(self, port: int) -> int:
        """Until ``port`` takes connections."""
        self._reader.start()
        until = time.perf_counter() + _START_SECONDS
        while time.perf_counter() < until:
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), _START_SECONDS).close()
                return port
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
                self._reader.join(1)  # longer where a process it left has the pipe, too
                raise self._ended()
        raise RuntimeError(f"{self.what} was not ready within {_START_SECONDS:.0f} s")

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"{self.what} ended before it was ready:\n{''.join(self._said)}")

    def _processes(self) -> list[int]:
        """Ids of the process and of all that descend from it."""
        found = [self._process.pid]
        for number in found:
            for thread in Path("/proc").glob(f"{number}/task/*/children"):
                with suppress(OSError):  # that has just ended
                    found += map(int, thread.read_text().split())
        return found

    def _read_all(self, name: str) -> list[str]:
        """That file of /proc of each process; of one that has just ended, none."""
        own, *others = self._processes()
        contents = [Path(f"/proc/{own}/{name}").read_text()]
        for number in others:
            with suppress(OSError):
                contents.append(Path(f"/proc/{number}/{name}").read_text())
        return contents

    def cpu_seconds(self) -> float:
        """User and system time of all threads of its processes so far.

        proc(5), fields 14 to 17 of stat: the last two are of children that have ended.
        """
        fields = [content.rsplit(")", 1)[1].split() for content in self._read_all("stat")]
        return sum(int(ticks) for one in fields for ticks in one[11:15]) / _TICKS

    def cpu_seconds_by_process(self) -> dict[tuple[int, str], float]:
        """As cpu_seconds(), of each process by its id and its command line."""
        found = {}
        for number in self._processes():
            with suppress(OSError):  # that has just ended
                fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
                command = Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
                found[number, command] = sum(map(int, fields[11:13])) / _TICKS
        return found

    def memory_bytes(self) -> tuple[int, int]:
        """(resident set, proportional set) of its processes together.

        The second shares out pages among all processes of the machine that hold them.
        """
        sizes = [_sizes(content.splitlines()) for content in self._read_all("smaps_rollup")]
        return sum(one["Rss"] for one in sizes), sum(one["Pss"] for one in sizes)

    def resident_bytes(self) -> int:
        """Of its processes together, a page of a file or of shared memory that several hold
        counted once; of a single process, its resident set.
        """
        private, shared = 0, Counter[str]()
        for content in self._read_all("smaps"):
            for mapping in _MAPPING.split(content)[1:]:
                head, *lines = mapping.splitlines()
                sizes = _sizes(lines)
                private += sizes["Anonymous"]
                # Offset, device and inode, which processes that map the same have in common.
                place = " ".join(head.split()[2:5])
                shared[place] = max(shared[place], sizes["Rss"] - sizes["Anonymous"])
        return private + shared.total()

    def stop(self) -> None:
        """End the process; by force if it does not end by itself, and what it leaves behind."""
        descendants = self._processes()[1:]
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            descendants = self._processes()[1:]
            self._process.kill()
            self._process.wait()
        for number in descendants:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
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


def _sizes(lines: Sequence[str]) -> dict[str, int]:
    """Bytes by name, of lines like ``Rss: 12 kB``."""
    found = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in found}


def free_port() -> int:
    """A port of this machine that nothing listens on, for a server that cannot choose one."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def start_service(
    models: Path,
    precision: str = "fp32",
    queue: int | None = None,
    device: str = "cpu",
    arguments: Sequence[str] = (),
    what: str | None = None,
) -> Server:
    """The service with its defaults; fp32 is the default precision.

    queue: how many requests may wait for a model, None for the default. arguments: further ones
    of ``serve``. what: its name in the tables, None for ``unroll`` and the precision.
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
    return Server(what or f"unroll {precision}", [*command, *arguments])


def start_peer(bundle: Path, streams: int) -> Server:
    """One loop a request, with a thread for each stream and a few more."""
    workers = str(streams + 8)
    command = ["bench.peers.loop_server", "--bundle", str(bundle), "--workers", workers]
    return Server("one loop a request", command)
