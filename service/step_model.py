"""What a step of a model reads and answers, for whoever runs it or speaks of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from bundle.manifest import StateTensor
from bundle.stepping import SteppingSpec


@dataclass(frozen=True)
class FramePort:
    """An input or output of one step. shape: of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class StepModel:
    """Rows are the first axis of each of its tensors."""

    inputs: tuple[FramePort, ...]
    outputs: tuple[FramePort, ...]
    state: tuple[StateTensor, ...]


@dataclass(frozen=True)
class StepperSpec:
    """How a model is stepped, for its card.

    spec: as its bundle says. batching: how it is run here, of bundle.stepping.BATCHING. reason: why
    that is not exact; empty where it is. shared_ports: what the rows of a step share.
    """

    model: StepModel
    spec: SteppingSpec
    batching: str
    reason: str
    shared_ports: tuple[FramePort, ...] = ()

    @property
    def shared(self) -> dict[str, tuple[float, ...]]:
        """By name the values that each may have, the usual one first."""
        return {one.name: one.choices for one in self.spec.shared}

    @property
    def choices(self) -> list[dict[str, float]]:
        """Each way to choose the values of what is shared, the usual one first."""
        names = list(self.shared)
        return [dict(zip(names, values, strict=True)) for values in product(*self.shared.values())]
