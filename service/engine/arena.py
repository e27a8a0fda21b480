"""The arrays that a step graph reads and writes: dense rows, made once, swapped each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class StateSpec:
    """One state tensor of a row; ``carried`` ones are made anew by each step."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    carried: bool


@dataclass(frozen=True)
class Side:
    """What one step reads and writes, by the graph's names; (capacity, …) each."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class Arena:
    """Rows 0 … n-1 belong to n streams; the rest are zero.

    Two sets of carried state take turns as input and output, so a step copies nothing.
    """

    def __init__(self, state: Sequence[StateSpec], capacity: int) -> None:
        self.state = tuple(state)
        self.capacity = capacity
        self.token = np.zeros(capacity, np.int64)
        self.temperature = np.zeros(capacity, np.float32)
        self.top_k = np.zeros(capacity, np.int64)
        self.top_p = np.zeros(capacity, np.float32)
        self.uniform = np.zeros(capacity, np.float32)
        self.next_token = np.zeros(capacity, np.int64)
        self.log_probability = np.zeros(capacity, np.float32)
        self._fixed = {s.name: self._rows_of(s) for s in state if not s.carried}
        self._carried = tuple(
            {s.name: self._rows_of(s) for s in state if s.carried} for _ in range(2)
        )
        self.side = 0

    def _rows_of(self, spec: StateSpec) -> Array:
        return np.zeros((self.capacity, *spec.shape), spec.dtype)

    def sides(self) -> tuple[Side, Side]:
        """The two directions of a step: from the first set into the second, and back."""
        return self._side(0), self._side(1)

    def _side(self, side: int) -> Side:
        controls = {
            name: getattr(self, name)
            for name in ("token", "temperature", "top_k", "top_p", "uniform")
        }
        written = {f"next_{name}": rows for name, rows in self._carried[1 - side].items()}
        return Side(
            {**controls, **self._fixed, **self._carried[side]},
            {
                "next_token": self.next_token,
                "log_probability": self.log_probability,
                **written,
            },
        )

    def swap(self) -> None:
        """After a step: what it wrote is what the next one reads."""
        self.side = 1 - self.side

    def current(self) -> dict[str, Array]:
        """The state the next step reads, (capacity, …) by name."""
        return {**self._fixed, **self._carried[self.side]}

    def clear(self) -> None:
        """Zero every row of every array."""
        for side in self.sides():
            for rows in (*side.inputs.values(), *side.outputs.values()):
                rows[:] = 0

    def take(self, row: int, state: Mapping[str, Array] | None) -> None:
        """Give ``row`` to a stream that starts from ``state``, or from zeros."""
        for name, rows in self.current().items():
            rows[row] = 0 if state is None else state[name]

    def give(self, row: int, last: int) -> None:
        """Take ``row`` back; the stream of row ``last`` moves into it.

        The freed row is zeroed in both sets: nothing of a stream outlives it.
        """
        for rows in (*self.current().values(), self.token):
            rows[row] = rows[last]
        for name in ("temperature", "top_k", "top_p"):
            controls = getattr(self, name)
            controls[row] = controls[last]
            controls[last] = 0
        self.token[last] = 0
        for side in (self._fixed, *self._carried):
            for rows in side.values():
                rows[last] = 0
