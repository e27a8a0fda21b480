"""Streams' state that stays on a device, and the graph that moves it between rows there.

onnxruntime gathers no rows of a device's memory by itself, so a bundle holds a graph for it:
each row of a tensor becomes a row of what is there, or one of those that come in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bundle.manifest import StateTensor, rows_index

Array = NDArray[Any]
State = Mapping[str, Array]

# Where a row comes from: a row of the current set, or ~i for incoming row i. The first of
# those is all zeros.
_ZEROS = ~0


class DeviceBuffer:
    """One tensor of (capacity, …) on ``device``; graphs are bound to its first rows."""

    def __init__(self, tensor: StateTensor, capacity: int, device: str) -> None:
        self.tensor = tensor
        self.device = device
        zeros = np.zeros((capacity, *tensor.shape), tensor.dtype)
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy(zeros, device, 0)

    def bind(self, bind: Callable[..., None], name: str, rows: int) -> None:
        """As the input or output ``name``, through a binding's own ``bind``."""
        dtype, shape = np.dtype(self.tensor.dtype).type, (rows, *self.tensor.shape)
        bind(name, self.device, 0, dtype, shape, self._value.data_ptr())


class DeviceRows:
    """The state of an slots's rows on a device.

    A move only notes from where a row's state is to come; settle() makes all moves since the
    last step at once. Each tensor has two buffers, and whatever runs reads one and writes the
    other: onnxruntime does not allow one for both (onnxruntime#32243).

    A freed row reads as zeros from then on; its bytes lie in the device's memory until
    something is written over them.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        state: Sequence[StateTensor],
        capacity: int,
        device: str,
    ) -> None:
        """session: of the bundle's graph ``rows``. device: by onnxruntime's name."""
        self.state = tuple(state)
        self.capacity = capacity
        self.device = device
        self.side = 0
        self.fixed_side = 0
        self._session = session
        self._sets = tuple(
            {tensor.name: DeviceBuffer(tensor, capacity, device) for tensor in state}
            for _ in range(2)
        )
        kinds = dict.fromkeys(rows_index(tensor) for tensor in state)
        self._from = {kind: np.full(capacity, _ZEROS, np.int64) for kind in kinds}
        self._incoming: list[State] = []
        self._moved = False
        self._streams = 0  # rows of the last settle()
        self._rows = 1  # rows of the current set that hold something

    # -- for the slots -------------------------------------------------------------------------

    def on_host(self, side: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Nothing of the state is in host memory."""
        return {}, {}

    def swap(self) -> None:
        self.side = 1 - self.side

    def clear(self, rows: int) -> None:
        for places in self._from.values():
            places[:rows] = _ZEROS
        self._incoming.clear()
        self._moved = True

    def current(self) -> dict[str, Array]:
        """A copy of all rows, for whoever wants to look at them."""
        return self._read(slice(None), self.state)

    def take(self, row: int, state: State | None) -> None:
        if state is not None:
            self._incoming.append(state)
        for rows in self._from.values():
            rows[row] = _ZEROS if state is None else ~len(self._incoming)
        self._moved = True

    def save(self, row: int) -> dict[str, Array]:
        return self._save(row, self.state)

    def save_carried(self, row: int) -> dict[str, Array]:
        return self._save(row, [tensor for tensor in self.state if tensor.carried])

    def _save(self, row: int, tensors: Sequence[StateTensor]) -> dict[str, Array]:
        found = self._read(slice(row, row + 1), tensors)
        return {name: rows[0] for name, rows in found.items()}

    def gather(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        carried = self._from["from_carried"]
        carried[list(rows)] = carried[list(parents)]
        self._moved = True

    def give(self, row: int, last: int) -> None:
        for rows in self._from.values():
            rows[row] = rows[last]
            rows[last] = _ZEROS
        self._moved = True

    # -- for the runner ------------------------------------------------------------------------

    def settle(self, streams: int, rows: int) -> None:
        """Make the moves so far: rows 0 … streams-1 are in place, those up to ``rows`` zeros.

        Turns both sides where anything moved.
        """
        if not self._moved and streams == self._streams:
            return
        binding = self._binding(slice(rows))
        for tensor in self.state:
            self._target(tensor).bind(binding.bind_output, f"next_{tensor.name}", rows)
        self._session.run_with_iobinding(binding)
        self.side, self.fixed_side = 1 - self.side, 1 - self.fixed_side
        for places in self._from.values():
            places[:] = _ZEROS
            places[:streams] = np.arange(streams)
        self._incoming.clear()
        self._moved, self._streams, self._rows = False, streams, rows

    def bind_step(self, binding: onnxruntime.IOBinding, rows: int) -> None:
        """A step's state, from the current sides; it holds for these sides alone."""
        for tensor in self.state:
            self._source(tensor).bind(binding.bind_input, tensor.name, rows)
            if tensor.carried:
                self._target(tensor).bind(binding.bind_output, f"next_{tensor.name}", rows)

    def _source(self, tensor: StateTensor) -> DeviceBuffer:
        return self._sets[self.side if tensor.carried else self.fixed_side][tensor.name]

    def _target(self, tensor: StateTensor) -> DeviceBuffer:
        return self._sets[1 - (self.side if tensor.carried else self.fixed_side)][tensor.name]

    def _binding(self, wanted: slice) -> onnxruntime.IOBinding:
        """The graph ``rows`` with the inputs that give the rows ``wanted``."""
        binding = self._session.io_binding()
        for kind, places in self._from.items():
            here = places[wanted]
            binding.bind_cpu_input(kind, np.where(here < 0, self._rows + ~here, here))
        for tensor in self.state:
            self._source(tensor).bind(binding.bind_input, tensor.name, self._rows)
            binding.bind_cpu_input(f"incoming_{tensor.name}", self._stacked(tensor))
        binding.synchronize_inputs()
        return binding

    def _stacked(self, tensor: StateTensor) -> Array:
        """(1 + incoming, …), the first row zeros"""
        rows = np.zeros((1 + len(self._incoming), *tensor.shape), tensor.dtype)
        for row, state in zip(rows[1:], self._incoming, strict=True):
            row[...] = state[tensor.name]
        return rows

    def _read(self, wanted: slice, tensors: Sequence[StateTensor]) -> dict[str, Array]:
        """The state of the rows ``wanted``, moves included, copied to host memory."""
        count = len(range(self.capacity)[wanted])
        found = {t.name: np.empty((count, *t.shape), t.dtype) for t in tensors}
        binding = self._binding(wanted)
        for name, rows in found.items():
            place = (rows.dtype.type, rows.shape, rows.ctypes.data)
            binding.bind_output(f"next_{name}", "cpu", 0, *place)
        self._session.run_with_iobinding(binding)
        return found
