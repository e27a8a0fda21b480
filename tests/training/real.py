"""Real data packages in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from training.data.packages import DataUnavailable

Loaded = TypeVar("Loaded")


def real(load: Callable[[], Loaded]) -> Loaded:
    """What ``load`` reads from its real package; skips by name where it cannot be fetched."""
    try:
        return load()
    except DataUnavailable as error:
        pytest.skip(str(error))
