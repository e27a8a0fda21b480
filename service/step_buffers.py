"""Buffers shared by an engine and the graphs that it steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class StepBuffers:
    """What one step reads and writes, by the graph's names; (capacity, …) each."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
