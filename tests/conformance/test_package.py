"""The suite is a distribution of its own: it runs where nothing else of the project lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from conformance import protocol, report
from conformance.runner import select
from tests.conformance.reference import ReferenceServer, serving
from unroll.inference import grpc_service_pb2 as pb

SUITE = Path("conformance")


def test_suite_runs_alone(tmp_path: Path):
    """A copy of the folder, without the project beside it, tests a server and knows every case."""
    shutil.copytree(SUITE, tmp_path / "conformance")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "conformance", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--list").strip() == report.list_of(select())
    with serving(ReferenceServer()) as target:
        assert "conforms" in run(target, "--only", "core-live-001", "stream-infer-001")


def test_wheel_holds_every_kind_of_file():
    """Whatever lies in the folder beside the modules is named in the wheel's patterns."""
    project = tomllib.loads((SUITE / "pyproject.toml").read_text())
    patterns = project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    kinds = {f"*{path.suffix}" for path in SUITE.iterdir() if path.is_file()}
    assert kinds - {"*.toml"} == set(patterns)


def test_protocol_is_the_services():
    """Messages go over the wire to and from the stubs' classes, which the process has, too."""
    request = protocol.ModelInferRequest(model_name="sums", id="1")
    request.parameters["sequence_id"].int64_param = 7
    request.inputs.add(name="x", datatype="INT64", shape=[1]).contents.int64_contents.append(3)
    read = pb.ModelInferRequest.FromString(request.SerializeToString())
    assert str(read) == str(request)
    described = protocol.ModelInferRequest.DESCRIPTOR
    assert described.full_name == pb.ModelInferRequest.DESCRIPTOR.full_name
    assert described.file.pool is not pb.DESCRIPTOR.pool
