"""Where each client is installed, and why one is missing.

`make test-clients` installs them; a client that could not be installed leaves its log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-clients"


@dataclass(frozen=True)
class Environment:
    """One client's packages, apart from the service's and from those of other clients.

    command: what a script of this client is run with. stamp: there once it is installed.
    """

    name: str
    command: str
    stamp: Path

    def missing(self) -> str | None:
        """Why its scripts cannot run; None where they can."""
        if self.stamp.exists():
            return None
        return f"the client {self.name} is not installed: {self._reason()}"

    def _reason(self) -> str:
        log = FOLDER / f"{self.name}.log"
        if not log.exists():
            return "run `make test-clients`"
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        said = [line for line in lines if line and not line.startswith("make")]
        return f"{said[-1] if said else 'installing it failed'} (all of it: {log})"


def python(name: str) -> Environment:
    """The environment of a Python client: .venv-clients/NAME."""
    folder = FOLDER / name
    return Environment(name, str(folder / "bin" / "python"), folder / ".installed")


TRITON = python("triton")
KSERVE = python("kserve")
MLSERVER = python("mlserver")
OPENAI = python("openai")
# The wheel of unroll/: beside tritonclient with protobuf 6.33, and with protobuf 7.
UNROLL_6 = python("unroll-6")
UNROLL_7 = python("unroll-7")
# A program, in tritonclient's wheel.
PERF_ANALYZER = replace(
    python("perf-analyzer"), command=str(FOLDER / "perf-analyzer" / "bin" / "perf_analyzer")
)
# The wheel of conformance/, with what it requires alone.
CONFORMANCE = python("conformance")
NODE = Environment("node", "node", Path(__file__).parent / "node" / "node_modules" / ".installed")
# A shell with a program of one.
SCHEMATHESIS = replace(python("schemathesis"), command="bash")
# A shell with buf, which the development environment holds.
SHELL = Environment("buf", "bash", ROOT / ".venv" / "bin" / "buf")
