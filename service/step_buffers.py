"""Buffers shared by an engine and the graphs that it steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class StepUse:
    """What the next step takes of what most steps can do without.

    adjusted: rows that have penalties or a bias. reports: whether somebody asks for what is written
    only then.
    """

    adjusted: int = 0
    reports: bool = False


@dataclass(frozen=True)
class StepBuffers:
    """What one step reads and writes, by the graph's names; (capacity, …) each.

    adjusted: inputs with a row for each row of the batch that has penalties or a bias. reports:
    outputs that are written where somebody asks. use: of both, the same for both directions.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    adjusted: Mapping[str, Array] = field(default_factory=dict)
    reports: Mapping[str, Array] = field(default_factory=dict)
    use: StepUse = field(default_factory=StepUse)
