"""The installed suite of conformance/: its module and its console script test the service.

python conformance_suite.py TARGET
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import conformance

DISTRIBUTION = "open-inference-conformance"
COMMANDS: Sequence[Sequence[str]] = (
    (sys.executable, "-m", "conformance"),
    (str(Path(sys.executable).with_name(DISTRIBUTION)),),
)
# Of the server, one request, a stream and a sequence.
CASES = ("core-live-001", "core-meta-001", "core-infer-001", "stream-infer-001", "seq-infer-001")
SECONDS = 50


def check_the_distribution() -> Path:
    """Its folder, not the clone's: it holds the package alone, and nothing else of ours."""
    assert "site-packages" in str(conformance.__file__), conformance.__file__
    files = distribution(DISTRIBUTION).files or []
    folders = {file.parts[0] for file in files if file.suffix in (".py", ".binpb")}
    assert folders == {"conformance"}, folders
    assert not [name for name in ("unroll", "service", "bundle") if find_spec(name)]
    return Path(str(conformance.__file__)).parent


def check_a_command(command: Sequence[str], target: str, inputs: Path, folder: str) -> None:
    options = ["--stable", "--inputs", str(inputs), "--json", "report.json", "--only", *CASES]
    done = subprocess.run(
        [*command, target, *options], cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    print(done.stdout, done.stderr, sep="")
    assert done.returncode == 0, f"{command} ended with {done.returncode}"
    report = json.loads(Path(folder, "report.json").read_text())
    found = {case["id"]: case["status"] for case in report["cases"]}
    assert found == dict.fromkeys(CASES, "passed"), found


if __name__ == "__main__":
    inputs = check_the_distribution() / "bundled_models.json"
    for command in COMMANDS:
        with TemporaryDirectory() as folder:
            check_a_command(command, sys.argv[1], inputs, folder)
