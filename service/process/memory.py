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
    return _statm(pid)[0]


def held_bytes(pid: int | None = None) -> int:
    """Of resident_bytes(), what no file backs: programs and libraries can be read again."""
    resident, shared = _statm(pid)
    return resident - shared


def _statm(pid: int | None) -> tuple[int, int]:
    """Resident bytes, and those of them that files back."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return int(fields[1]) * page, int(fields[2]) * page


def share_arenas() -> None:
    """Before there are threads: few of glibc's arenas, each of which keeps what it once took."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def trim_memory() -> None:
    """Collect what is unreachable, and give it back."""
    gc.collect()
    give_back()


def give_back() -> None:
    """Have the C library give back what it keeps for later."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
