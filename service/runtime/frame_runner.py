"""Runs the graph of a model that is stepped over numbers, on arrays that are bound once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from service.runtime.runners import WIDE_ROWS
from service.runtime.session_pair import SessionPair

Array = NDArray[Any]


class FrameRunner:
    """shared: of each choice of what the rows of a step share, the arrays by the graph's names."""

    def __init__(
        self,
        step: SessionPair | onnxruntime.InferenceSession,
        shared: Sequence[Mapping[str, Array]] = ({},),
    ) -> None:
        self.sessions = step if isinstance(step, SessionPair) else SessionPair(step)
        self._shared = shared
        self._inputs: Mapping[str, Array] = {}
        self._outputs: Mapping[str, Array] = {}
        self._steps: dict[tuple[int, int, bool], Callable[[], None]] = {}

    def attach(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """(rows, …) each, by the graph's names."""
        self._inputs, self._outputs = inputs, outputs
        self._steps.clear()

    def step(self, rows: int, shared: int) -> None:
        """Raises whatever onnxruntime does."""
        is_wide = rows >= WIDE_ROWS and self.sessions.find_wide() is not None
        step = self._steps.get((rows, shared, is_wide))
        if step is None:
            step = self._steps[rows, shared, is_wide] = self._bound(rows, shared, is_wide)
        step()

    def _bound(self, rows: int, shared: int, is_wide: bool) -> Callable[[], None]:
        session = self.sessions.of_width(is_wide)
        binding = session.io_binding()
        inputs = {name: array[:rows] for name, array in self._inputs.items()}
        outputs = {name: array[:rows] for name, array in self._outputs.items()}
        for arrays, bind in (
            ({**inputs, **self._shared[shared]}, binding.bind_input),
            (outputs, binding.bind_output),
        ):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return partial(session.run_with_iobinding, binding)
