"""perf_analyzer, the load generator of Triton's users, measures the running service to the end.

It reads ModelStatistics before and after each of its windows, while requests run, and aborts where
two counts disagree: so each load is measured several times.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import Service
from tests.clients.environments import PERF_ANALYZER

pytestmark = pytest.mark.clients

RUNS, CONCURRENCY, TOKENS, STEPS = 5, 16, 16, 8
# Windows by requests, since machines differ; any spread between them will do.
WINDOWS = (
    *("--measurement-mode", "count_windows", "--measurement-request-count", "50"),
    *("--measurement-interval", "500", "--stability-percentage", "999"),
)
WITHIN_SECONDS = 55


@dataclass(frozen=True)
class Load:
    """inputs: of its requests, one after the other. arguments: beside those of every load.

    protocol: grpc or http.
    """

    model: str
    inputs: Sequence[dict[str, list[str]]]
    arguments: Sequence[str] = ()
    protocol: str = "grpc"


TEXTS = [{"text": ["the food was not good"]}, {"text": ["very good"]}]
SEQUENCES = ("--sequence-length", str(STEPS))
LOADS = {
    "unary": Load("sentiment", TEXTS),
    "http": Load("sentiment", TEXTS, protocol="http"),
    "http-sequences": Load("pos-online", TEXTS, SEQUENCES, protocol="http"),
    "streams": Load(
        "prose",
        [{"prompt": ["ROMEO:"]}],
        ("--streaming", "--request-parameter", f"max_tokens:{TOKENS}:int"),
    ),
    "sequences": Load("pos-online", TEXTS, SEQUENCES),
    "sequences-on-streams": Load("pos-online", TEXTS, ("--streaming", *SEQUENCES)),
}


def environment() -> dict[str, str]:
    """perf_analyzer is linked with CUDA's runtime, whether a machine has a GPU or not."""
    folder = Path(PERF_ANALYZER.command).parents[1]
    libraries = folder.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}


@pytest.fixture(scope="module")
def perf_analyzer() -> str:
    """Its path, where it starts."""
    reason, path = PERF_ANALYZER.missing(), PERF_ANALYZER.command
    if not (reason or Path(path).exists()):
        reason = f"tritonclient's wheel for {os.uname().machine} has no perf_analyzer"
    if not reason:
        began = subprocess.run(
            [path, "--version"], env=environment(), capture_output=True, text=True
        )
        if began.returncode:
            reason = f"perf_analyzer does not start (Debian: libb64-0d): {began.stderr.strip()}"
    if reason:
        pytest.skip(reason)
    return path


@pytest.mark.parametrize("name", LOADS)
def test_every_run_of_a_load_comes_to_its_end(
    service: Service, perf_analyzer: str, tmp_path: Path, name: str
) -> None:
    load = LOADS[name]
    inputs, report = tmp_path / "inputs.json", tmp_path / "report.csv"
    inputs.write_text(json.dumps({"data": load.inputs}))
    command = [
        *(perf_analyzer, "-m", load.model, "-u", service.target, "-i", load.protocol),
        *("--input-data", str(inputs), "--concurrency-range", str(CONCURRENCY)),
        *(*load.arguments, *WINDOWS, "-f", str(report)),
    ]
    for _ in range(RUNS):
        report.unlink(missing_ok=True)
        finished = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=WITHIN_SECONDS
        )
        assert finished.returncode == 0, f"{finished.stdout}{finished.stderr}"
        (found,) = csv.DictReader(report.read_text().splitlines())
        figures = {column: float(value) for column, value in found.items()}
        print(f"{name}: {figures['Inferences/Second']} requests/s of {CONCURRENCY} callers")
        check(figures)
        if name == "streams":
            assert figures["Response Throughput"] > figures["Inferences/Second"]


def check(figures: dict[str, float]) -> None:
    """What the server says of itself is from its statistics."""
    assert figures["Concurrency"] == CONCURRENCY
    assert figures["Inferences/Second"] > 0
    assert 0 < figures["p50 latency"] <= figures["p99 latency"]
    assert figures["Server Compute Infer"] > 0
