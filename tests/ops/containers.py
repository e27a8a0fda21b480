"""Containers of podman, with images and state of their own that leave with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.ops.proxies import free_ports

# What a careful operator allows the service: nothing to write to, no capability, little memory.
LOCKED = (
    "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--memory", "512m", "--pids-limit", "256",
)  # fmt: skip
START_SECONDS = 60.0
COMMAND_SECONDS = 120.0

# Runs without systemd, and inside a container whose limits are lower than podman's defaults.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
[network]
network_config_dir = "{folder}/networks"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/run/libpod"
"""
_STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""


class Podman:
    """One podman whose images, containers and state lie under ``folder``."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        files = {"containers.conf": _CONTAINERS_CONF, "storage.conf": _STORAGE_CONF}
        for name, text in files.items():
            (folder / name).write_text(text.format(folder=folder))
        self.environment = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def try_run(
        self, *arguments: str, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def run(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """What the command wrote. Raises AssertionError, with its errors, where it failed."""
        done = self.try_run(*arguments, seconds=seconds)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def bytes_of(self, image: str) -> int:
        return int(self.run("image", "inspect", image, "--format", "{{.Size}}"))

    def close(self) -> None:
        self.try_run("rm", "--all", "--force", "--time", "0")
        self.try_run("system", "reset", "--force")
        shutil.rmtree(self._folder, ignore_errors=True)


class Container:
    """The image, running locked down, on two free ports of the loopback interface."""

    def __init__(
        self,
        podman: Podman,
        image: str,
        *,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> None:
        """settings: variables of its environment. options: of podman. flags: of the service."""
        self._podman = podman
        self.port, self.http_port = free_ports(2)
        environment = {
            "UNROLL_ADDRESS": self.target,
            "UNROLL_HTTP_ADDRESS": f"127.0.0.1:{self.http_port}",
        } | dict(settings or {})
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        self._begun = time.monotonic()
        self.name = podman.run("run", "--detach", *LOCKED, *variables, *options, image, *flags)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_until_healthy(self) -> float:
        """Seconds from its start until its health check passed."""
        while self._podman.try_run("healthcheck", "run", self.name).returncode != 0:
            assert self.inspect("{{.State.Running}}") == "true", self.log
            assert time.monotonic() < self._begun + START_SECONDS, self.log
        return time.monotonic() - self._begun

    def inspect(self, template: str) -> str:
        return self._podman.run("inspect", self.name, "--format", template)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, as the image's user."""
        return self._podman.try_run("exec", self.name, *command)

    def get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read(), "utf-8")

    @property
    def log(self) -> str:
        done = self._podman.try_run("logs", self.name)
        return done.stdout + done.stderr

    def stop(self, seconds: int = 60) -> int:
        """Its exit code after SIGTERM; it is killed after ``seconds``."""
        self._podman.run("stop", "--time", str(seconds), self.name)
        return self.exit_code()

    def signal(self, name: str) -> None:
        self._podman.run("kill", "--signal", name, self.name)

    def catches(self, number: int) -> bool:
        """Whether its first process handles the signal."""
        status = self.execute("cat", "/proc/1/status").stdout
        found = re.search(r"^SigCgt:\t([0-9a-f]+)$", status, re.MULTILINE)
        return bool(found and int(found[1], 16) >> (number - 1) & 1)

    def exit_code(self, seconds: float = COMMAND_SECONDS) -> int:
        """Of its end, which comes within ``seconds``."""
        return int(self._podman.run("wait", self.name, seconds=seconds))
