"""Tests against real components: a line each with what was seen, a name for what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ops.replicas import Replica

ROOT = Path(__file__).parents[2]
# What `make ops-tools` installs from PyPI.
TOOLS = ROOT / ".venv-ops" / "bin"

_SEEN = pytest.StashKey[list[str]]()
_LINES = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True)
def saw(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Records what a test saw; one that passes must have seen something."""
    seen = request.node.stash.setdefault(_SEEN, [])
    return seen.append


@pytest.fixture
def need() -> Callable[..., list[str]]:
    """Paths of programs; the test is skipped, with their names, where some are missing."""

    def find(*programs: str, package: str = "") -> list[str]:
        path = f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}"
        found = {program: shutil.which(program, path=path) for program in programs}
        missing = [program for program, place in found.items() if place is None]
        if missing:
            install = f"apt-get install {package}" if package else "make ops-tools"
            pytest.skip(f"missing: {', '.join(missing)} ({install})")
        return [place for place in found.values() if place]

    return find


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one of the bundled models, prose: a service over it starts soon."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "prose").symlink_to(ROOT / "models" / "prose")
    return folder


@pytest.fixture
def start_replica(models: Path, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Starts ``python -m service serve`` over ``models`` with further flags; all are ended."""
    running: list[Replica] = []

    def start(*flags: str, port: int = 0, http_port: int = 0) -> Replica:
        log = tmp_path / f"replica-{len(running)}.log"
        replica = Replica(
            ("--models", str(models), *flags), log, port=port, http_port=http_port, root=ROOT
        )
        running.append(replica)
        return replica

    yield start
    for replica in running:
        replica.kill()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if "ops" not in item.keywords:
        return report
    lines = item.config.stash.setdefault(_LINES, [])
    seen = item.stash.get(_SEEN, [])
    if report.when == "call" and report.passed and not seen:
        report.outcome, report.longrepr = "failed", "the test passed and saw nothing"
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        lines.append(f"skipped  {item.name}: {str(reason).removeprefix('Skipped: ')}")
    elif report.failed:
        lines.append(f"FAILED   {item.name} ({report.when})")
    elif report.when == "call":
        lines.append(f"passed   {item.name}: {'; '.join(seen)}")
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if lines := config.stash.get(_LINES, []):
        terminalreporter.section("what was seen")
        for line in lines:
            terminalreporter.write_line(line)
