"""The service in a container of 1 GiB, as tests/attacks/harness.py knows a service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.attacks.harness import BUNDLES, Service, copy_of, wait_until
from tests.attacks.soak.catalogue import ATTACKER
from tests.attacks.soak.site import Site
from tests.ops.containers import Container, Podman

ROOT = Path(__file__).parents[3]
IMAGE = "localhost/unroll:soak"
WITNESS = "ann"
MEMORY = "1g"
PROPAGATION_SECONDS, GRACE_SECONDS = 1.0, 10.0
# With the handing over of what has not finished.
STOP_SECONDS = PROPAGATION_SECONDS + GRACE_SECONDS + 8.0
_BUILD_SECONDS = 600
_CGROUPS = Path("/sys/fs/cgroup")


def podman_in(folder: Path) -> Podman:
    """A podman whose images stay in ``folder``. Raises SystemExit where it cannot run."""
    program = shutil.which("podman")
    if os.geteuid() != 0 or program is None or shutil.which("runc") is None:
        raise SystemExit("needs podman and runc, as root: `make ops-tools` installs them")
    folder.mkdir(parents=True, exist_ok=True)
    return Podman(program, folder)


def build(podman: Podman) -> None:
    """The image of this working tree. Raises SystemExit with what the build wrote."""
    done = subprocess.run(
        [ROOT / "deploy" / "build-image.sh", IMAGE],
        env=podman.environment,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode:
        raise SystemExit(f"the image cannot be built:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


class Cgroup:
    """What the kernel counts for the container's processes: of cgroup v1's files or v2's."""

    def __init__(self, pid: int) -> None:
        folders = {}
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            folders[controllers] = path.lstrip("/")
        self._is_v1 = "memory" in folders
        place = _CGROUPS / "memory" if self._is_v1 else _CGROUPS
        self._folder = place / folders["memory" if self._is_v1 else ""]

    def limit(self) -> int:
        """Bytes. Raises OSError or ValueError where there is none."""
        return self._number("memory.limit_in_bytes" if self._is_v1 else "memory.max")

    def used(self) -> int:
        """Bytes, the page cache's too."""
        return self._number("memory.usage_in_bytes" if self._is_v1 else "memory.current")

    def kills(self) -> int:
        """Processes that were killed for want of memory."""
        name = "memory.oom_control" if self._is_v1 else "memory.events"
        counts = dict(line.split() for line in (self._folder / name).read_text().splitlines())
        return int(counts["oom_kill"])

    def _number(self, name: str) -> int:
        return int((self._folder / name).read_text())


class Contained(Service):
    """``make image``'s image, locked down, in MEMORY; close() removes the container.

    folder: an empty one, for its models and tokens.
    Raises AssertionError where it does not start, or its memory is not limited.
    """

    def __init__(self, podman: Podman, folder: Path) -> None:
        self.models = copy_of((path.name for path in BUNDLES.iterdir()), folder / "models")
        self.tokens = {}
        path = self._write_tokens(folder / "tokens", (WITNESS, ATTACKER))
        self.grace_seconds = GRACE_SECONDS
        settings = {
            "AUTH_TOKENS": "/tokens",
            "LOG_FORMAT": "json",
            "LOG_REQUESTS": "true",
            "LOG_TEXTS": "true",
            "PROPAGATION_SECONDS": str(PROPAGATION_SECONDS),
            "GRACE_SECONDS": str(GRACE_SECONDS),
        }
        self._podman = podman
        self._pid = self._log_pid = 0
        self._container = Container(
            podman,
            IMAGE,
            settings={f"UNROLL_{name}": value for name, value in settings.items()},
            options=(
                "--memory", MEMORY, "--memory-swap", MEMORY,
                "--log-driver", "k8s-file", "--log-opt", "max-size=64mb",
                f"--volume={self.models}:/opt/unroll/models:ro", f"--volume={path}:/tokens:ro",
            ),
        )  # fmt: skip
        self.port, self.http_port = self._container.port, self._container.http_port
        try:
            self._container.wait_until_healthy()
            state = json.loads(self._container.inspect("{{json .State}}"))
            self._pid, self._log_pid = int(state["Pid"]), int(state["ConmonPid"])
            self.cgroup = Cgroup(self._pid)
            assert self.cgroup.limit() == 2**30, f"limited to {self.cgroup.limit()} bytes"
            self._at_start = self.resting()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def is_alive(self) -> bool:
        try:
            # Of one that has ended and is yet to be waited for it is empty.
            return bool(Path(f"/proc/{self._pid}/cmdline").read_bytes())
        except OSError:
            return False

    def site(self) -> Site:
        return Site(self.port, self.http_port, self.pid, self._log_pid, self.models, self.tokens)

    def log(self) -> str:
        return self._container.log

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._pid, number)

    def kills(self) -> int:
        """Processes that were killed for want of memory."""
        try:
            return self.cgroup.kills()
        except OSError:  # the cgroup has ended with its last process
            return int(self._container.inspect("{{.State.OOMKilled}}") == "true")

    def exit_code(self) -> int:
        """Of one that has ended."""
        return self._container.exit_code()

    def stop(self) -> float:
        """SIGTERM, and SIGKILL where it does not end in time; the seconds until it ended."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        wait_until(lambda: not self.is_alive, STOP_SECONDS)
        seconds = time.monotonic() - began
        if self.is_alive:
            self.signal(signal.SIGKILL)
        return seconds

    def close(self) -> None:
        if self._log_pid:  # else it never ran
            self.site().resume()
        self._podman.try_run("rm", "--force", "--time", "0", self._container.name)
