"""The compose file, up: two replicas in containers, HAProxy before them, Prometheus beside them."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from tests.deploy.manifests import COMPOSE, ROOT
from tests.ops.containers import Podman
from tests.ops.proxies import free_ports
from unroll import Client, Sampling

pytestmark = [pytest.mark.ops, pytest.mark.timeout(900)]

PROJECT = "unroll-test"
SERVICE, HAPROXY, PROMETHEUS = (
    f"localhost/{name}:compose" for name in ("unroll", "haproxy", "prometheus")
)
STREAMS, TOKENS = 16, 200
# Prometheus scrapes every 15 s, and podman starts one container after another.
WAIT_SECONDS = 60.0


@pytest.fixture
def podman(need, tmp_path):
    program, _, _ = need("podman", "runc", "mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("missing: root, as which containers get their limits")
    folder = tmp_path / "podman"
    folder.mkdir()
    made = Podman(program, folder)
    yield made
    made.close()


def build_images(podman: Podman, folder: Path) -> None:
    """The service's, and stand-ins of Debian's packages for those that registries hold."""
    done = subprocess.run(
        [ROOT / "deploy" / "build-image.sh", SERVICE],
        env=podman.environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    tar = folder / "debian.tar"
    own_folder = 'mkdir "$1"/prometheus && chown 65534:65534 "$1"/prometheus'
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io",
         "--include=haproxy,prometheus", f"--customize-hook={own_folder}",
         "bookworm", tar, mirror()],
        check=True,
        timeout=300,
    )  # fmt: skip
    for image, entrypoint in ((HAPROXY, "[]"), (PROMETHEUS, '["prometheus"]')):
        podman.run("import", "--quiet", "--change", f"ENTRYPOINT {entrypoint}",
                   "--change", "USER 65534:65534", str(tar), image)  # fmt: skip
    tar.unlink()


def mirror() -> str:
    """Where apt on this machine gets Debian's packages from."""
    for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if file.exists() and (found := re.search(r"https?://\S+/debian/?(?=\s)", file.read_text())):
            return found[0]
    pytest.skip("missing: a Debian mirror among apt's sources")


class Stack:
    """What compose.yaml and compose.host.yaml start, on free ports of the loopback interface."""

    def __init__(self, compose: str, podman: Podman, folder: Path) -> None:
        self._podman = podman
        names = ("PROXY", "PROXY_ADMIN", "REPLICA_1", "REPLICA_2", "PROMETHEUS",
                 "REPLICA_1_HTTP", "REPLICA_2_HTTP")  # fmt: skip
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.http = [self.ports[f"REPLICA_{n}_HTTP"] for n in "12"]
        keys, targets = folder / "resume-keys", folder / "targets.yml"
        keys.write_text(secrets.token_hex(32) + "\n")
        targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in self.http]}]))
        self._environment = podman.environment | {
            "SERVICE_IMAGE": SERVICE,
            "HAPROXY_IMAGE": HAPROXY,
            "PROMETHEUS_IMAGE": PROMETHEUS,
            "RESUME_KEYS": str(keys),
            "TARGETS": str(targets),
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
        }
        files = [COMPOSE / "compose.yaml", COMPOSE / "compose.host.yaml"]
        self._command = [
            compose, "--podman-path", podman._program, "-p", PROJECT,
            *(part for file in files for part in ("-f", str(file))),
        ]  # fmt: skip

    def compose(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def container(self, service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        return self._podman.run("ps", "--all", "--quiet", "--filter", label)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports['PROXY']}"

    def up(self) -> dict[str, str]:
        """What Prometheus has of each replica: "1" where it could be scraped."""
        url = f"http://127.0.0.1:{self.ports['PROMETHEUS']}/api/v1/query?query=up"
        found = json.loads(fetch(url))["data"]["result"]
        return {one["metric"]["instance"]: one["value"][1] for one in found}

    def usable(self) -> int:
        """Replicas that HAProxy sends calls to."""
        text = fetch(f"http://127.0.0.1:{self.ports['PROXY_ADMIN']}/metrics")
        line = r'^haproxy_server_status\{proxy="replicas",.*state="UP"\} 1$'
        return len(re.findall(line, text, re.M))

    def finished(self, http_port: int) -> float:
        """Streams that a replica has finished."""
        text = fetch(f"http://127.0.0.1:{http_port}/metrics")
        line = r'^unroll_streams_finished_total\{model="prose",reason="length"\} (\S+)$'
        return sum(map(float, re.findall(line, text, re.M)))

    def logs(self) -> str:
        services = ("replica-1", "replica-2", "haproxy", "prometheus")
        done = [self._podman.try_run("logs", self.container(name)) for name in services]
        return "\n".join(one.stdout[-1500:] + one.stderr[-1500:] for one in done)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read(), "utf-8")


def wait_for(what, stack: Stack) -> float:
    """Seconds until ``what()`` holds."""
    begun = time.monotonic()
    while True:
        try:
            if what():
                return time.monotonic() - begun
        except OSError:
            pass
        assert time.monotonic() < begun + WAIT_SECONDS, stack.logs()
        time.sleep(0.2)


def test_compose_file_serves(need, podman, tmp_path, saw):
    """Both replicas get streams, Prometheus sees both; one stops, and no call fails."""
    (compose,) = need("podman-compose")
    build_images(podman, tmp_path)
    stack = Stack(compose, podman, tmp_path)
    try:
        stack.compose("up", "--detach")
        started = wait_for(lambda: stack.usable() == 2, stack)
        with Client(stack.target, timeout=60) as client:
            answers = stream_all(client)
            split = [stack.finished(port) for port in stack.http]
            assert sum(split) == STREAMS
            assert min(split) > 0
            # The same request, whichever replica it went to.
            assert len(answers) == STREAMS
            assert len(set(answers.values())) == STREAMS / 2
            scraped = wait_for(
                lambda: stack.up() == {f"127.0.0.1:{port}": "1" for port in stack.http}, stack
            )
            calls = stop_one_while_calling(stack, client)
        assert podman.run("inspect", stack.container("replica-1"), "--format",
                          "{{.State.ExitCode}}") == "0"  # fmt: skip
        saw(
            f"two replicas behind HAProxy {started:.1f} s after up; {STREAMS} streams split "
            f"{split[0]:.0f}/{split[1]:.0f}; Prometheus saw both {scraped:.1f} s later; one "
            f"stopped with exit 0 while {calls} calls went through and none failed"
        )
    finally:
        stack.compose("down", "--timeout", "1", "--volumes")


def stream_all(client: Client) -> dict[int, str]:
    """The text of each stream; every seed is sent twice."""
    answers: dict[int, str] = {}

    def read(number: int) -> None:
        pieces = client.generate(
            "prose", prompt="ROMEO:\n", max_tokens=TOKENS, sampling=Sampling(seed=number // 2)
        )
        answers[number] = "".join(piece.text for piece in pieces)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def stop_one_while_calling(stack: Stack, client: Client) -> int:
    """Calls that were answered from before SIGTERM until the replica has ended."""
    stopping = threading.Thread(target=stack.compose, args=("stop", "-t", "50", "replica-1"))
    calls = 0
    stopping.start()
    while stopping.is_alive():
        client.classify("sentiment", ["the food is not good"])
        calls += 1
        time.sleep(0.02)
    stopping.join()
    assert stack.usable() == 1
    return calls
