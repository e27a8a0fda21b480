"""The service as in a container of 1 GiB: python -m tests.attacks.contained serve …

Its memory limit is reported to it, as a cgroup does; harness.Usage enforces it.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import service.process.memory

MEMORY_BYTES = 1024 * 1024 * 1024


def main() -> None:
    # Before anything has imported the function by its name.
    service.process.memory.memory_limit = _memory_limit
    runpy.run_module("service", run_name="__main__", alter_sys=True)


def _memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    return MEMORY_BYTES


if __name__ == "__main__":
    main()
