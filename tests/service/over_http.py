"""Fixtures of folders whose tests speak HTTP, which grpcio's server does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningService, running
from tests.front_ends import is_envoy


@pytest.fixture
def front_end() -> str:
    return "envoy"


@pytest.fixture(scope="session")
def standing_service(
    standing_service: RunningService, tiny_models: Path
) -> Iterator[RunningService]:
    """The one that all tests share, where it speaks HTTP."""
    if is_envoy():
        yield standing_service
        return
    with running(tiny_models, front_end="envoy") as service:
        yield service
