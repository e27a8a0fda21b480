"""The CPU's extensions by which onnxruntime chooses kernels: why machines may round otherwise."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# As Linux names them: of x86-64 first, then of Arm.
KERNEL_EXTENSIONS = (
    "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_LISTS = ("flags", "Features")


@cache
def cpu_extensions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Those of KERNEL_EXTENSIONS that the first core has, in that order; none where that cannot be
    read."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    for line in lines:
        name, _, listed = line.partition(":")
        if name.strip() in _LISTS:
            found = set(listed.split())
            return tuple(each for each in KERNEL_EXTENSIONS if each in found)
    return ()
