"""The service over the bundled models, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.access.auth import new_token
from tests.clients.environments import ROOT

READY = "ready: gRPC on port "
STOP_SECONDS = 60
FREE_PORTS = ("--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
AT_ONCE = ("--propagation-seconds", "0")


class Service:
    """A running service. Its log is read on, so that it is never held up by a full pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self.target = f"127.0.0.1:{self._read_port()}"
        self._reader = threading.Thread(target=self._read_on)
        self._reader.start()

    def _read_port(self) -> str:
        for line in self.process.stdout:
            self.log.append(line)
            if READY in line:
                return line.split(READY)[1].split(",")[0]
        raise AssertionError(f"the service did not start: {''.join(self.log)}")

    def _read_on(self) -> None:
        self.log.extend(self.process.stdout)

    def stop(self) -> str:
        """Its whole log, once it has ended on SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)
        self._reader.join()
        return "".join(self.log)


@contextmanager
def serving(*flags: str) -> Iterator[Service]:
    """The service with ``flags``; whatever callers did, it ends well."""
    serve = [sys.executable, "-m", "service", "serve", "--models", "models"]
    command = [*serve, *FREE_PORTS, *AT_ONCE, *flags]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipe) as process:
        try:
            running = Service(process)
            yield running
            log = running.stop()
            assert process.returncode == 0, log
            assert "Traceback" not in log, log
        finally:
            process.kill()


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """One service for every client."""
    with serving() as running:
        yield running


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """A service that asks for tokens, and one that it takes."""
    token, line = new_token("client", ["infer"])
    (tmp_path / "tokens").write_text(line)
    with serving("--auth-tokens", str(tmp_path / "tokens")) as running:
        yield running, token
