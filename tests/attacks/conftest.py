"""The service that is attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.attacks.harness import Service, Stages, Witness


@pytest.fixture(scope="module")
def _stages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stages]:
    """In the quick half, the attacks of a file that need the same service share it."""
    is_full = request.config.getoption("--attacks")
    stages = Stages(tmp_path_factory.mktemp("stages"), shares=not is_full)
    yield stages
    stages.close()


@pytest.fixture
def attacked(_stages: Stages) -> Callable[..., AbstractContextManager[tuple[Service, Witness]]]:
    """``with attacked(settings …) as (service, witness)``, as Stages.attacked()."""
    return _stages.attacked
