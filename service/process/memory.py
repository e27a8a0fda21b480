"""Memory of the process: limit, use, trimming."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path

# Of glibc's mallopt(3).
_M_ARENA_MAX, _ARENAS = -8, 2
_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes: the cgroup's limit, else what the machine has; a limit above that is none."""
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


def resident_bytes(pid: int | None = None) -> int:
    """Of this process, or another one; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def share_arenas() -> None:
    """Before there are threads: few of glibc's arenas, each of which keeps what it once took."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def trim_memory() -> None:
    """Collect what is unreachable, and have the C library give back what it keeps for later."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
