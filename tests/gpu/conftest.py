"""Nothing of tests/conftest.py: it needs torch, and this folder runs without."""

import pytest

from tests.gpu import cuda


@pytest.fixture(autouse=True, scope="session")
def _needs_cuda():
    if reason := cuda.missing():
        pytest.skip(f"no CUDA here: {reason}")
