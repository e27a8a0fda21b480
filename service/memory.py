"""How much memory this process may use: by its cgroup's limit, else what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes. A limit above what the machine has is none."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> list[int]:
    limits = []
    for name in _FILES:
        try:
            limits.append(int((root / name).read_text()))
        except (OSError, ValueError):  # not this kind of cgroup, or "max"
            continue
    return limits
