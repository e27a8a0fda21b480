"""What README.md shows is what the bundled models answer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.findings import PEER

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# The first block of each kind.
CONSOLE, PYTHON, PRINTED = (
    next(text for one, text in BLOCKS if one == kind) for kind in ("console", "python", "text")
)
TARGET = "127.0.0.1:50051"

CONTROL = next(text for kind, text in BLOCKS if kind == "console" and "create-state" in text)


def shown(block: str) -> list[tuple[str, str]]:
    """Each command with the lines that are shown below it; what sets the shell up is left out."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    return [(command, answer) for command, answer in found if "unroll" in command]


# How a stream ended, which no two runs say alike.
HOW_IT_ENDED = re.compile(r"\[(end|length); .*seed \d+\]")


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A service of its own on a free port, as ``python -m service serve`` starts it."""
    serve = [sys.executable, "-m", "service", "serve", "--propagation-seconds", "0"]
    # One of the lines speaks HTTP, whichever front end other tests have.
    serve += ["--front-end", "auto"]
    ports = ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    with subprocess.Popen([*serve, *ports], cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if ready := re.search(r"ready: gRPC on port (\d+)", line):
                    yield f"127.0.0.1:{ready[1]}"
                    break
            else:
                pytest.fail("the service ended before it was ready")
        finally:
            server.send_signal(signal.SIGTERM)


def answered(command: list[str], target: str, text: str = "") -> str:
    """Standard output of ``command`` in the clone with its environment active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "UNROLL_CLIENT_TARGET": target}
    ran = subprocess.run(
        command, input=text, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(("block", "commands"), [(CONSOLE, 7), (CONTROL, 4)])
def test_every_command_answers_what_is_shown(target, block, commands):
    """In a plain shell, with the lines in the order they are shown."""
    for command, answer in shown(block):
        if "create-state" in command:
            answered(["bash", "-c", command], target)
            continue
        lines = answered(["bash", "-c", command.replace(TARGET, target)], target).splitlines()
        found = [line.rstrip() for line in lines if line and not HOW_IT_ENDED.fullmatch(line)]
        expected = list(filter(None, answer.splitlines()))
        assert len(found) == len(expected), command
        for line, said in zip(found, expected, strict=True):
            begins = said.removesuffix("…")
            assert line[: len(begins) if begins != said else None] == begins, command
    assert len(shown(block)) == commands


def test_the_python_lines_print_what_is_shown(target):
    assert TARGET in PYTHON
    assert answered([sys.executable, "-"], target, PYTHON.replace(TARGET, target)) == PRINTED


def test_the_rates_are_those_of_the_last_run_of_the_bench():
    run = json.loads((ROOT / "docs" / "bench" / "results.json").read_text())
    rates = {
        row["what"]: (row["over_grpc"] or row["bare"])["tokens_per_second"]
        for row in run["findings"]["streams"]
        if row["streams"] == 64
    }
    fp32, int8, loop = (rates[what] for what in ("unroll fp32", "unroll int8", PEER))
    said = f"{fp32:,.0f} tokens/s in fp32, {int8:,.0f} in int8; one ONNX Runtime loop a request"
    assert f"{said} makes {loop:,.0f} (" in " ".join(README.split())


def test_the_first_screen_has_forty_lines_at_most():
    """What it is, what it looks like, the benchmark and the links."""
    assert README.index("\n## ") == README.index("\n## Your own data")
    assert README[: README.index("\n## ")].count("\n") <= 40
