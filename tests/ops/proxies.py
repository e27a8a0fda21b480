"""HAProxy and Envoy before two replicas, Envoy at the edge, with the files that deploy/ ships."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0


def free_ports(count: int) -> list[int]:
    """Of this machine; nobody holds them when they are used, or the test fails to start."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Proxy:
    """A proxy process on this machine; stop() it.

    kind: haproxy, envoy, or edge for Envoy at the edge. replicas: (gRPC port, HTTP port) of both,
    or of the one behind the edge. variables: further ones of its template.
    Raises RuntimeError if it does not start.
    """

    def __init__(
        self,
        kind: str,
        program: str,
        replicas: tuple[tuple[int, int], ...],
        folder: Path,
        **variables: str,
    ) -> None:
        self.port, self.admin_port = free_ports(2)
        self.log = folder / f"{kind}.log"
        environment = os.environ | {
            "PROXY_HOST": "127.0.0.1",
            "PROXY_PORT": str(self.port),
            "PROXY_ADMIN_HOST": "127.0.0.1",
            "PROXY_ADMIN_PORT": str(self.admin_port),
            "WEB_ORIGIN": "http://localhost",
            "REPLICA_HOST": "127.0.0.1",
            "REPLICA_PORT": str(replicas[0][0]),
            **variables,
        }
        for number, (port, http_port) in enumerate(replicas, start=1):
            environment[f"REPLICA_{number}_HOST"] = "127.0.0.1"
            environment[f"REPLICA_{number}_PORT"] = str(port)
            environment[f"REPLICA_{number}_HTTP_PORT"] = str(http_port)
        command = getattr(self, f"_{kind}")(program, folder, environment)
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self.checks = "/metrics" if kind == "haproxy" else "/clusters"
        self.kind = kind

    def _haproxy(self, program: str, folder: Path, environment: dict[str, str]) -> list[str]:
        return [program, "-W", "-db", "-f", str(ROOT / "deploy" / "haproxy" / "haproxy.cfg")]

    def _envoy(self, program: str, folder: Path, environment: dict[str, str]) -> list[str]:
        return self._rendered("envoy.yaml", program, folder, environment)

    def _edge(self, program: str, folder: Path, environment: dict[str, str]) -> list[str]:
        return self._rendered("edge.yaml", program, folder, environment)

    @staticmethod
    def _rendered(
        template: str, program: str, folder: Path, environment: dict[str, str]
    ) -> list[str]:
        config = folder / template
        render = [str(ROOT / "deploy" / "envoy" / "render.sh"), template]
        text = subprocess.run(render, env=environment, capture_output=True, check=True, text=True)
        config.write_text(text.stdout)
        # Two cores and no other Envoy: no shared memory, one worker.
        return [program, "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def serving(self) -> int:
        """Replicas that it sends calls to now."""
        url = f"http://127.0.0.1:{self.admin_port}{self.checks}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                lines = str(answer.read(), "utf-8").splitlines()
        except (urllib.error.URLError, OSError):
            return -1
        if self.kind == "haproxy":
            return sum(
                line.startswith('haproxy_server_status{proxy="replicas"')
                and 'state="UP"' in line
                and float(line.rsplit(" ", 1)[1]) == 1
                for line in lines
            )
        return sum(line.endswith("health_flags::healthy") for line in lines)

    def wait_for(self, replicas: int, seconds: float = START_SECONDS) -> None:
        """Until it sends calls to so many. Raises RuntimeError."""
        until = time.monotonic() + seconds
        while self.serving() != replicas:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.kind} sends to {self.serving()} replicas, not {replicas}:\n"
                    f"{self.log.read_text()}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
