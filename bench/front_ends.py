"""The front ends of the service: which can run here, and how each is chosen."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from bench.peers.pyvoy import find_envoy
from bench.servers import Missing, Server, start_service

ENVOY, GRPCIO = "envoy", "grpcio"
# The one that is to be the faster comes first.
FRONT_ENDS = (ENVOY, GRPCIO)


def available_front_ends() -> tuple[list[str], dict[str, str]]:
    """(those that can run here, what each of the others lacks)."""
    found, skipped = [], {}
    for name in FRONT_ENDS:
        try:
            front_end_arguments(name)
        except Missing as missing:
            skipped[name] = str(missing)
        else:
            found.append(name)
    return found, skipped


def start_front_end(name: str, models: Path, precision: str, device: str) -> Server:
    """The service with that front end, by whose name it goes in the tables. Raises Missing."""
    arguments = front_end_arguments(name)
    return start_service(models, precision, device=device, arguments=arguments, what=name)


def front_end_arguments(name: str) -> tuple[str, ...]:
    """What ``serve`` is started with to have it. Raises Missing."""
    can_choose = "--front-end" in _serve_help()
    if name == ENVOY:
        if not can_choose:
            raise Missing("`serve` has no --front-end")
        find_envoy()
    return ("--front-end", name) if can_choose else ()


@cache
def _serve_help() -> str:
    command = [sys.executable, "-m", "service", "serve", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
