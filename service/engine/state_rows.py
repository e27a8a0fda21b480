"""The state of streams that are not stepped all at once: a row each, gathered for a step.

Streams of tokens sit side by side in the batch and their state is read where it lies
(``slots.py``). Frames come when their callers have them: each step is of other streams, so what a
step reads is copied together, and what it wrote is copied back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import StateTensor
from service.engine.requests import State

Array = NDArray[Any]

_FIRST_ROWS = 16


class StateRows:
    """Rows of as many streams as are open; the table grows as they come.

    batch: of a step, (capacity, …) by the graph's names: what it reads, and as ``next_NAME`` what
    it writes.
    """

    def __init__(self, state: Sequence[StateTensor], capacity: int) -> None:
        self.state = tuple(state)
        self._read = {s.name: np.zeros((capacity, *s.shape), s.dtype) for s in state}
        self._written = {
            f"next_{s.name}": np.zeros((capacity, *s.shape), s.dtype) for s in state if s.carried
        }
        self._table = {s.name: np.zeros((_FIRST_ROWS, *s.shape), s.dtype) for s in state}
        self._rows = _FIRST_ROWS
        self._free = list(range(_FIRST_ROWS))

    @property
    def inputs(self) -> Mapping[str, Array]:
        return self._read

    @property
    def outputs(self) -> Mapping[str, Array]:
        return self._written

    def take(self, state: State | None) -> int:
        """A row that starts from ``state``, or from zeros."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        if state is not None:
            for name, rows in self._table.items():
                rows[row] = state[name]
        return row

    def _grow(self) -> None:
        for name, table in self._table.items():
            self._table[name] = np.concatenate((table, np.zeros_like(table)))
        self._free.extend(range(self._rows, 2 * self._rows))
        self._rows *= 2

    def give(self, row: int) -> None:
        """Nothing of a stream outlives it."""
        self.reset(row)
        self._free.append(row)

    def reset(self, row: int) -> None:
        for rows in self._table.values():
            rows[row] = 0

    def save(self, row: int) -> dict[str, Array]:
        """A copy of a row's state, as take() wants it."""
        return {name: rows[row].copy() for name, rows in self._table.items()}

    def gather(self, rows: Sequence[int]) -> None:
        """What the first rows of a step read is the state of these."""
        count = len(rows)
        for name, table in self._table.items():
            table.take(rows, axis=0, out=self._read[name][:count], mode="clip")

    def scatter(self, rows: Sequence[int], places: Sequence[int] | None = None) -> None:
        """What a step wrote is the state of these rows. places: of them in the step; None for the
        first ones."""
        for name, written in self._written.items():
            made = written[: len(rows)] if places is None else written[list(places)]
            self._table[name.removeprefix("next_")][list(rows)] = made

    def broken(self, count: int) -> NDArray[np.bool_] | None:
        """Which of the first ``count`` rows of a step wrote NaN; None for none."""
        return broken_rows_of(self._written.values(), count)


def broken_rows_of(arrays: Any, count: int) -> NDArray[np.bool_] | None:
    """Which of the first ``count`` rows hold NaN in any of ``arrays``; None for none."""
    found: NDArray[np.bool_] | None = None
    for array in arrays:
        rows = array[:count]
        # Mostly one sum says that there is none; infinities and what overflows are looked at.
        if rows.dtype.kind != "f" or np.isfinite(rows.sum(dtype=np.float64)):
            continue
        broken = np.isnan(rows).reshape(count, -1).any(axis=1)
        if broken.any():
            found = broken if found is None else found | broken
    return found
