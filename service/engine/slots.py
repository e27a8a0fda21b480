"""Slots: the dense rows that a step graph reads and writes, made once, swapped each step.

A stream's state may live elsewhere than in host memory (``StateStore``); what a step reads and
writes beside it is always here.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import ATTENTION, RETRIES, StateTensor
from bundle.sampling import GRAPH_PARAMETERS
from service.engine.requests import State
from service.engine.rng import BLOCK, UniformBlocks
from service.step_buffers import StepBuffers, StepUse

Array = NDArray[Any]

# Arrays of rows from which on they are mapped.
_MAPPED_BYTES = 1 << 20
# Steps whose random numbers are gathered together, at most.
_AHEAD = BLOCK


class StateStore(Protocol):
    """The state of rows 0 … n-1: ``side`` says which of two sets the next step reads."""

    @property
    def side(self) -> int: ...

    def on_host(self, side: int) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """What of the state a step from ``side`` reads and writes in host memory."""

    def swap(self) -> None:
        """After a step: what it wrote is what the next one reads."""

    def clear(self, rows: int) -> None:
        """Zero the first ``rows``, which steps have written."""

    def current(self) -> Mapping[str, Array]:
        """The state the next step reads, (capacity, …) by name."""

    def take(self, row: int, state: State | None) -> None:
        """``row`` starts from ``state``, or from zeros."""

    def save(self, row: int) -> dict[str, Array]:
        """A copy of a row's state, as take() wants it."""

    def save_carried(self, row: int) -> dict[str, Array]:
        """As save(), without what prefill sets for good."""

    def gather(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        """Row rows[i] goes on from the carried state of row parents[i]."""

    def give(self, row: int, last: int) -> None:
        """Row ``last`` moves into ``row``; its old place reads as zeros."""


def _unwritten_zeros(shape: tuple[int, ...], dtype: str) -> Array:
    """Large ones take no memory before they are written: the sources of most rows never are.

    The C library's zeros would where it has memory to use again, which it must clear.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _MAPPED_BYTES:
        return np.zeros(shape, dtype)
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


class HostStateStore:
    """State in host memory, which a step on the CPU reads and writes in place.

    Two sets of carried state take turns as input and output, so a step copies nothing.
    """

    def __init__(self, state: Sequence[StateTensor], capacity: int) -> None:
        def rows_of(spec: StateTensor) -> Array:
            return _unwritten_zeros((capacity, *spec.shape), spec.dtype)

        self._fixed = {s.name: rows_of(s) for s in state if not s.carried}
        self._carried = tuple({s.name: rows_of(s) for s in state if s.carried} for _ in range(2))
        self.side = 0

    def on_host(self, side: int) -> tuple[dict[str, Array], dict[str, Array]]:
        written = {f"next_{name}": rows for name, rows in self._carried[1 - side].items()}
        return {**self._fixed, **self._carried[side]}, written

    def swap(self) -> None:
        self.side = 1 - self.side

    def clear(self, rows: int) -> None:
        for side in self._carried:
            for array in side.values():
                # No more of it: zeros that are written take memory.
                array[:rows] = 0

    def _everything(self) -> tuple[Array, ...]:
        return (*self._fixed.values(), *(r for side in self._carried for r in side.values()))

    def current(self) -> dict[str, Array]:
        return {**self._fixed, **self._carried[self.side]}

    def take(self, row: int, state: State | None) -> None:
        for name, rows in self.current().items():
            rows[row] = 0 if state is None else state[name]

    def save(self, row: int) -> dict[str, Array]:
        return {name: rows[row].copy() for name, rows in self.current().items()}

    def save_carried(self, row: int) -> dict[str, Array]:
        return {name: rows[row].copy() for name, rows in self._carried[self.side].items()}

    def gather(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        for array in self._carried[self.side].values():
            array[list(rows)] = array[list(parents)]

    def give(self, row: int, last: int) -> None:
        """The freed row is zeroed in both sets: nothing of a stream outlives it."""
        for rows in self.current().values():
            rows[row] = rows[last]
        for rows in self._everything():
            rows[last] = 0


class _Ahead:
    """Numbers of one control for the next steps, (_AHEAD, capacity, …).

    Between two steps of a graph nothing is left of Python or numpy in the processor's nearest
    caches, so what is done there costs by the code and the objects that it touches: a view's bytes
    are copied in a tenth of the time that numpy takes.
    """

    def __init__(self, control: Array) -> None:
        self.numbers = np.zeros((_AHEAD, *control.shape), control.dtype)
        self._control, self._numbers = _flat(control), _flat(self.numbers)
        self._step, self._row = control.size, math.prod(control.shape[1:])

    def use(self, step: int, rows: int) -> None:
        start, size = step * self._step, rows * self._row
        self._control[:size] = self._numbers[start : start + size]


def _flat(array: Array) -> Any:
    """A view of its numbers, one after the other."""
    return array.reshape(-1).data


class StepSlots:
    """Rows 0 … n-1 belong to n streams; the rest are zero.

    controls: what a step reads beside its state, (capacity, …) by the graph's names; ``uniform`` is
    added. outputs: what it writes beside it. rows: where the streams' state lives; in host memory
    unless said otherwise. numbers: uniform ones that a step reads of each row.
    """

    def __init__(
        self,
        state: Sequence[StateTensor],
        capacity: int,
        controls: Mapping[str, Array],
        outputs: Mapping[str, Array],
        rows: StateStore | None = None,
        numbers: int = 1,
    ) -> None:
        self.state = tuple(state)
        self.capacity = capacity
        self.rows = HostStateStore(state, capacity) if rows is None else rows
        self.controls = {**controls, "uniform": np.zeros(capacity, np.float32)}
        self.outputs = dict(outputs)
        self.use = StepUse()
        self._uniform_blocks = UniformBlocks(numbers)
        # Of each row, the numbers of the block under way, and where in all of them its next are.
        self._blocks = np.zeros((capacity, BLOCK, numbers), np.float32)
        self._numbers = self._blocks.reshape(-1, numbers)
        self._next = np.zeros(capacity, np.int64)
        self._draws_left = BLOCK  # before any row's block may be used up
        # Numbers that were gathered for so many rows and steps, of which some are used.
        self._uniforms = _Ahead(self.controls["uniform"])
        self._rows = self._gathered = self._used = 0
        self._horizon = 1  # steps to gather next
        # Bound once: these are called each step, or for each row that moves.
        self.swap = self.rows.swap
        self.current = self.rows.current
        self.take = self.rows.take
        self.save = self.rows.save
        self.save_carried = self.rows.save_carried
        self.gather = self.rows.gather

    @property
    def side(self) -> int:
        return self.rows.side

    def sides(self) -> tuple[StepBuffers, StepBuffers]:
        """The two directions of a step: from the first set into the second, and back."""
        return self._side(0), self._side(1)

    def _side(self, side: int) -> StepBuffers:
        read, written = self.rows.on_host(side)
        return StepBuffers({**self.controls, **read}, {**self.outputs, **written}, use=self.use)

    def clear(self, rows: int) -> None:
        """Zero the first ``rows`` of what steps have read or written, which is all of it."""
        self._rewind()
        for array in (*self.controls.values(), *self.outputs.values()):
            array[:rows] = 0
        self.rows.clear(rows)

    def seed(self, row: int, seed: int, sample: int, position: int) -> None:
        """The row's next numbers are those at ``position`` of its stream's."""
        self._rewind()
        block, place = divmod(position, BLOCK)
        self._blocks[row] = self._uniform_blocks.block(seed, sample, block)
        self._next[row] = row * BLOCK + place
        self._draws_left = min(self._draws_left, BLOCK - place)

    def draw_uniforms(self, rows: int) -> Sequence[int]:
        """Set the next uniform numbers of rows 0 … rows-1.

        Returns the rows whose block is used up: seed() them before the next draw.
        """
        if self._used == self._gathered or rows != self._rows:
            self._rewind()
            self._gather(rows)
        self._draw(self._used, rows)
        self._used += 1
        self._draws_left -= 1
        if self._draws_left:
            return ()
        places = self._next[:rows] - np.arange(rows) * BLOCK
        self._draws_left = int((BLOCK - places % BLOCK).min())
        return np.flatnonzero(places == BLOCK).tolist()

    def _gather(self, rows: int) -> None:
        """Of the next steps, as long as no block ends."""
        steps = min(self._horizon, self._draws_left)
        following = self._next[:rows]
        places = following + np.arange(steps)[:, None]
        self._set_ahead(steps, rows, self._numbers.take(places, axis=0, mode="clip"))
        following += steps
        self._rows, self._gathered, self._used = rows, steps, 0
        self._horizon = min(2 * self._horizon, _AHEAD)

    def _rewind(self) -> None:
        """What was gathered and not used is gathered again: rows move, or change."""
        left = self._gathered - self._used
        if left:
            self._next[: self._rows] -= left
            self._horizon = 1
        self._gathered = self._used = 0

    def _set_ahead(self, steps: int, rows: int, numbers: Array) -> None:
        """numbers: (steps, rows, numbers) of each row."""
        self._uniforms.numbers[:steps, :rows] = numbers[:, :, 0]

    def _draw(self, step: int, rows: int) -> None:
        """Of those that are gathered."""
        self._uniforms.use(step, rows)

    def give(self, row: int, last: int) -> None:
        """Take ``row`` back; the stream of row ``last`` moves into it.

        The freed row is zeroed: nothing of a stream outlives it.
        """
        self._rewind()
        self.rows.give(row, last)
        moving = (*self.controls.values(), self._blocks, self._next)
        for rows in moving:
            rows[row] = rows[last]
        self._next[row] -= (last - row) * BLOCK
        for rows in (*moving, *self.outputs.values()):
            rows[last] = 0


class Slots(StepSlots):
    """Of streams of tokens, each drawn among ``vocabulary``.

    What a row of the vocabulary long is there for few streams: those that adjust their logits have
    rows of ``bias`` and ``seen``, which lie one after the other in the order they came, and all
    log-probabilities are written in steps with a stream that reports some. So is attention, over
    ``attended`` places of the source, of a model that says it.
    """

    def __init__(
        self,
        state: Sequence[StateTensor],
        capacity: int,
        vocabulary: int,
        rows: StateStore | None = None,
        attended: int = 0,
    ) -> None:
        columns = {name: np.zeros(capacity, p.dtype) for name, p in GRAPH_PARAMETERS.items()}
        self.next_token = np.zeros(capacity, np.int64)
        self.log_probability = np.zeros(capacity, np.float32)
        self.log_probabilities = np.zeros((capacity, vocabulary), np.float32)
        self.attention = np.zeros((capacity, attended), np.float32)
        super().__init__(
            state,
            capacity,
            {
                "token": np.zeros(capacity, np.int64),
                **columns,
                "retries": np.zeros((capacity, RETRIES), np.float32),
            },
            {"next_token": self.next_token, "log_probability": self.log_probability},
            rows,
            1 + RETRIES,
        )
        self._retries = _Ahead(self.controls["retries"])
        self._token, self._next_token = _flat(self.controls["token"]), _flat(self.next_token)
        self._log_probability = _flat(self.log_probability)
        self.adjusted = {
            "adjusted": np.zeros(capacity, np.int64),
            "seen": np.zeros((capacity, vocabulary), np.bool_),
            "bias": np.zeros((capacity, vocabulary), np.float32),
        }
        # Of each row, its place among the adjusted ones, None for none; and whether it reports.
        self._places: list[int | None] = [None] * capacity
        self._reports = [False] * capacity
        self._reporting = 0
        self._has_reported = False
        # Of each sampling parameter: its name, its column, and what changes no draw.
        self._columns = tuple(
            (p.name, columns[name], p.neutral) for name, p in GRAPH_PARAMETERS.items()
        )

    def _side(self, side: int) -> StepBuffers:
        reports = {"log_probabilities": self.log_probabilities}
        if self.attention.size:
            reports[ATTENTION] = self.attention
        return replace(super()._side(side), adjusted=self.adjusted, reports=reports)

    def _set_ahead(self, steps: int, rows: int, numbers: Array) -> None:
        super()._set_ahead(steps, rows, numbers)
        self._retries.numbers[:steps, :rows] = numbers[:, :, 1:]

    def _draw(self, step: int, rows: int) -> None:
        self._uniforms.use(step, rows)
        self._retries.use(step, rows)

    def drawn(self, rows: int) -> tuple[list[int], list[float]]:
        """What a step drew of rows 0 … rows-1, which they read next, with its log-probabilities."""
        tokens = self._next_token[:rows]
        self._token[:rows] = tokens
        return tokens.tolist(), self._log_probability[:rows].tolist()

    def clear(self, rows: int) -> None:
        super().clear(rows)
        for row in range(rows):
            self._release(row)
        if self._has_reported:
            self.log_probabilities[:rows] = 0
            self.attention[:rows] = 0

    def control(self, row: int, token: int = 0, reports: bool = False, **values: float) -> None:
        """Set a row's token and its sampling parameters by name; what is left out is neutral.

        reports: whether its stream looks at the log-probabilities of all tokens, or at attention.
        """
        self.controls["token"][row] = token
        for name, column, neutral in self._columns:
            column[row] = values.get(name, neutral)
        self._release(row)
        if reports:
            self._reports[row] = True
            self._count_reports(1)

    def adjust(self, row: int) -> tuple[Array, Array]:
        """The row's own bias and seen, (vocabulary,) each; zeros where it had none yet."""
        place = self._places[row]
        if place is None:
            place = self._places[row] = self.use.adjusted
            self.use.adjusted += 1
            self.adjusted["adjusted"][place] = row
        return self.adjusted["bias"][place], self.adjusted["seen"][place]

    def give(self, row: int, last: int) -> None:
        self._release(row)
        super().give(row, last)
        if self._has_reported:
            self.log_probabilities[last] = 0
            self.attention[last] = 0
        if row == last:
            return
        place = self._places[row] = self._places[last]
        self._reports[row] = self._reports[last]
        self._places[last], self._reports[last] = None, False
        if place is not None:
            self.adjusted["adjusted"][place] = row

    def _release(self, row: int) -> None:
        """The row adjusts and reports nothing any more."""
        if self._reports[row]:
            self._reports[row] = False
            self._count_reports(-1)
        place = self._places[row]
        if place is None:
            return
        self._places[row] = None
        self.use.adjusted -= 1
        last = self.use.adjusted
        for rows in self.adjusted.values():
            rows[place] = rows[last]
            rows[last] = 0
        if place != last:
            self._places[int(self.adjusted["adjusted"][place])] = place

    def _count_reports(self, more: int) -> None:
        self._reporting += more
        self.use.reports = self._reporting > 0
        self._has_reported |= self.use.reports


class SeriesSlots(StepSlots):
    """Of streams of values, each drawn after the one before it and the features of its step.

    Values are in units of their series' scale.
    """

    def __init__(
        self,
        state: Sequence[StateTensor],
        capacity: int,
        features: int,
        rows: StateStore | None = None,
    ) -> None:
        self.next_value = np.zeros(capacity, np.float32)
        super().__init__(
            state,
            capacity,
            {
                "value": np.zeros(capacity, np.float32),
                "observed": np.zeros(capacity, np.float32),
                "features": np.zeros((capacity, features), np.float32),
            },
            {"next_value": self.next_value},
            rows,
        )

    def control(self, row: int, value: float, observed: float, features: Array) -> None:
        """Set what a row reads of the step before, and of the next one."""
        self.controls["value"][row] = value
        self.controls["observed"][row] = observed
        self.controls["features"][row] = features
