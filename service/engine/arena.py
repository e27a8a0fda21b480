"""The arrays that a step graph reads and writes: dense rows, made once, swapped each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.randomness import BLOCK, uniform_block
from service.engine.requests import State

Array = NDArray[Any]


@dataclass(frozen=True)
class StateSpec:
    """One state tensor of a row; ``carried`` ones are made anew by each step."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    carried: bool


# What a step reads of a row beside its state, by the graph's names: type, and the value that
# cuts and changes nothing.
_CONTROLS: dict[str, tuple[type[np.generic], float]] = {
    "token": (np.int64, 0),
    "temperature": (np.float32, 0.0),
    "top_k": (np.int64, 0),
    "top_p": (np.float32, 1.0),
    "min_p": (np.float32, 0.0),
    "uniform": (np.float32, 0.0),
    "repetition": (np.float32, 1.0),
}


@dataclass(frozen=True)
class Side:
    """What one step reads and writes, by the graph's names; (capacity, …) each."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class Arena:
    """Rows 0 … n-1 belong to n streams; the rest are zero.

    Two sets of carried state take turns as input and output, so a step copies nothing.
    """

    def __init__(self, state: Sequence[StateSpec], capacity: int, vocabulary: int) -> None:
        self.state = tuple(state)
        self.capacity = capacity
        self.controls: dict[str, Array] = {
            name: np.zeros(capacity, dtype) for name, (dtype, _) in _CONTROLS.items()
        }
        self.controls["seen"] = np.zeros((capacity, vocabulary), np.bool_)
        self.controls["bias"] = np.zeros((capacity, vocabulary), np.float32)
        self.next_token = np.zeros(capacity, np.int64)
        self.log_probability = np.zeros(capacity, np.float32)
        self.log_probabilities = np.zeros((capacity, vocabulary), np.float32)
        # Of each row, the numbers of the block under way, and where in all of them its next is.
        self._blocks = np.zeros((capacity, BLOCK), np.float32)
        self._numbers = self._blocks.reshape(-1)
        self._next = np.zeros(capacity, np.int64)
        self._draws_left = BLOCK  # before any row's block may be used up
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
        written = {f"next_{name}": rows for name, rows in self._carried[1 - side].items()}
        return Side(
            {**self.controls, **self._fixed, **self._carried[side]},
            {
                "next_token": self.next_token,
                "log_probability": self.log_probability,
                "log_probabilities": self.log_probabilities,
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

    def take(self, row: int, state: State | None) -> None:
        """Give ``row`` to a stream that starts from ``state``, or from zeros."""
        for name, rows in self.current().items():
            rows[row] = 0 if state is None else state[name]

    def save(self, row: int) -> dict[str, Array]:
        """A copy of a row's state, as take() wants it."""
        return {name: rows[row].copy() for name, rows in self.current().items()}

    def save_carried(self, row: int) -> dict[str, Array]:
        """As save(), without what priming sets for good."""
        return {name: rows[row].copy() for name, rows in self._carried[self.side].items()}

    def gather(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        """Row rows[i] goes on from the carried state of row parents[i]."""
        for array in self._carried[self.side].values():
            array[list(rows)] = array[list(parents)]

    def control(self, row: int, **values: float) -> None:
        """Set what is named of a row's controls; whatever is not changes no draw."""
        for name, (_, neutral) in _CONTROLS.items():
            self.controls[name][row] = values.get(name, neutral)
        self.controls["seen"][row] = False
        self.controls["bias"][row] = 0

    def seed(self, row: int, seed: int, sample: int, position: int) -> None:
        """The row's next number is the one at ``position`` of its stream's."""
        block, place = divmod(position, BLOCK)
        self._blocks[row] = uniform_block(seed, sample, block)
        self._next[row] = row * BLOCK + place
        self._draws_left = min(self._draws_left, BLOCK - place)

    def draw_uniforms(self, rows: int) -> list[int]:
        """Set the next uniform of rows 0 … rows-1.

        Returns the rows whose block is used up: seed() them before the next draw.
        """
        following = self._next[:rows]
        self._numbers.take(following, out=self.controls["uniform"][:rows], mode="clip")
        following += 1
        self._draws_left -= 1
        if self._draws_left:
            return []
        places = following - np.arange(rows) * BLOCK
        self._draws_left = int((BLOCK - places % BLOCK).min())
        return np.flatnonzero(places == BLOCK).tolist()

    def give(self, row: int, last: int) -> None:
        """Take ``row`` back; the stream of row ``last`` moves into it.

        The freed row is zeroed in both sets: nothing of a stream outlives it.
        """
        moving = (*self.controls.values(), self._blocks, self._next)
        for rows in (*self.current().values(), *moving):
            rows[row] = rows[last]
        self._next[row] -= (last - row) * BLOCK
        outputs = (self.next_token, self.log_probability, self.log_probabilities)
        sets = (*self._fixed.values(), *(r for side in self._carried for r in side.values()))
        for rows in (*sets, *moving, *outputs):
            rows[last] = 0
