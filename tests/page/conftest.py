"""The service over the bundled models, and a browser that visits it.

`make test-page` installs what it is driven with.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients import conftest as clients
from tests.clients.conftest import Service, serving

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INSTALLED = HERE / "node_modules" / ".installed"
# Debian's and its derivatives' name first.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WITHIN_SECONDS = 240

Visit = Callable[..., str]
secured = clients.secured


@pytest.fixture(scope="session")
def bundled() -> Iterator[Service]:
    with serving("--metrics-on-port") as running:
        yield running


@pytest.fixture
def visit() -> Visit:
    """Run a script of this folder in a browser on a service; returns what it says."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no chromium (Debian: apt-get install chromium)")
    if not INSTALLED.exists():
        pytest.skip("playwright-core and axe-core are not installed: run `make test-page`")

    def visit(script: str, target: str, *arguments: str) -> str:
        command = ["node", str(HERE / script), target, browser, *arguments]
        finished = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_SECONDS
        )
        print(finished.stdout, finished.stderr, sep="")
        assert finished.returncode == 0, f"{script} failed; its output is below"
        return finished.stdout

    return visit
