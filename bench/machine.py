"""Which machine and versions a run's figures are from."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from service.config import usable_cores
from service.runtime.cpu import cpu_extensions

_PACKAGES = ("onnxruntime", "grpcio", "pyvoy", "numpy")  # where they are installed
_EXTENSIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Machine:
    """load: runnable processes over the last minute when the run began; above a half, others
    were at work and the figures are low."""

    cpu: str
    cores: int
    extensions: tuple[str, ...]
    system: str
    python: str
    packages: dict[str, str]
    load: float

    @property
    def was_busy(self) -> bool:
        return self.load > 0.5

    def sentence(self) -> str:
        packages = ", ".join(f"{name} {found}" for name, found in self.packages.items())
        return (
            f"{self.cpu}, {self.cores} cores ({', '.join(self.extensions)}), {self.system}, "
            f"Python {self.python}, {packages}; load {self.load:.1f} when the run began"
        )


def this_machine() -> Machine:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in facts.items()}
    known = cpu_extensions()
    return Machine(
        names.get("model name", platform.machine()),
        usable_cores(),
        tuple(name for name in _EXTENSIONS if name in known),
        platform.system(),
        platform.python_version(),
        {d.name: d.version for name in _PACKAGES for d in distributions(name=name)},
        os.getloadavg()[0],
    )
