"""Fails when what `make proto` writes is not what the pinned compiler makes of the proto files.

python -m tests.stub_drift
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path("proto")
# Of an environment of its own: the compiler excludes the protobuf that serves.
COMPILER = Path(".venv-stubs/bin/python")
# The conformance suite's own copy of the protocol, and what it is made of.
DESCRIPTORS = "conformance/protocol.binpb"
PROTOCOL = "proto/unroll/inference/grpc_service.proto"


def drifted() -> list[str]:
    """The generated files that differ from the committed ones."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}={folder}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
        protos = sorted(map(str, PROTOS.rglob("*.proto")))
        command = [COMPILER, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *outputs, *protos]
        subprocess.run(command, check=True)
        _write_descriptors(Path(folder) / DESCRIPTORS)
        made = [path for path in Path(folder).rglob("*") if path.is_file()]
        names = [str(path.relative_to(folder)) for path in made]
        return [n for p, n in zip(made, names, strict=True) if _differs(p, Path(n))]


def _write_descriptors(path: Path) -> None:
    path.parent.mkdir()
    options = [f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={path}"]
    subprocess.run([COMPILER, "-m", "grpc_tools.protoc", *options, PROTOCOL], check=True)


def _differs(made: Path, committed: Path) -> bool:
    return not committed.exists() or committed.read_bytes() != made.read_bytes()


if __name__ == "__main__":
    if not COMPILER.exists():
        sys.exit("the compiler of the stubs is not installed; `make check` and `make proto` do")
    if found := drifted():
        sys.exit(f"not what the proto files make: {', '.join(found)}; run `make proto`")
