"""The probe of a model that is stepped over numbers: as ``probe.py``, for a graph from elsewhere.

What its numbers mean is not known, so they are drawn small. Several steps are taken, so that states
are not zero when rows among others are compared with rows alone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import StateTensor
from service.runtime.frame_runner import FrameRunner
from service.runtime.probe import OutputNotFinite, ProbeResult
from service.step_model import FramePort, StepModel

Array = NDArray[Any]

_BATCHES = (2, 5, 16)
_STEPS = 3
# Of the numbers that are drawn: as those of quiet audio.
_SCALE = 0.1


def probe_steps(
    runners: Sequence[FrameRunner], model: StepModel, choices: int, is_promised: bool
) -> ProbeResult:
    """Step each row alone, and rows together, with each choice of what they share.

    runners: that must compute the same, the usual one first. is_promised: whether rows that differ
    among others are more than was said; then none of its batches is invariant.

    Raises OutputNotFinite where a row alone computes NaN, or one among others of which no equal
    bits were promised, and whatever onnxruntime does.
    """
    hashed, invariant = hashlib.sha256(), is_promised
    for shared in range(choices):
        rows = range(max(_BATCHES))
        alone = [list(_steps_of(runners[0], model, shared, [row])) for row in rows]
        for step in (step for row in alone for step in row):
            _refuse_nan(step)
        for step in alone[0]:
            for part in step.values():
                hashed.update(part.tobytes())
        for runner, size in itertools.product(runners, _BATCHES):
            together = _steps_of(runner, model, shared, rows[:size])
            if is_promised:
                invariant &= _together_is_alone(together, alone)
            else:
                for step in together:
                    _refuse_nan(step)
    return ProbeResult(invariant, hashed.hexdigest())


def _refuse_nan(outputs: Mapping[str, Array]) -> None:
    for name, rows in outputs.items():
        if rows.dtype.kind == "f" and np.isnan(rows).any():
            raise OutputNotFinite(f"graph 'step' computes NaN as {name!r}")


def _together_is_alone(
    together: Iterable[Mapping[str, Array]], alone: Sequence[Sequence[Mapping[str, Array]]]
) -> bool:
    """together: the steps of a batch. alone: of each row, the steps."""
    return all(
        found[row : row + 1].tobytes() == alone[row][number][name].tobytes()
        for number, step in enumerate(together)
        for name, found in step.items()
        for row in range(len(found))
    )


def _steps_of(
    runner: FrameRunner, model: StepModel, shared: int, numbers: Sequence[int]
) -> Iterator[dict[str, Array]]:
    """What several steps give of the rows of these numbers, each the same whatever is beside it."""
    rows = len(numbers)
    random = [np.random.Generator(np.random.Philox(key=7 + number)) for number in numbers]
    frames = {p.name: np.zeros((rows, *p.shape), p.dtype) for p in model.inputs}
    state = {s.name: np.zeros((rows, *s.shape), s.dtype) for s in model.state}
    answers = {p.name: np.zeros((rows, *p.shape), p.dtype) for p in model.outputs}
    written = {f"next_{s.name}": np.zeros_like(state[s.name]) for s in model.state if s.carried}
    runner.attach(frames | state, answers | written)
    for _ in range(_STEPS):
        for port in model.inputs:
            for row, draw in enumerate(random):
                frames[port.name][row] = _drawn(port, draw)
        runner.step(rows, shared)
        yield {name: rows.copy() for name, rows in (answers | written).items()}
        for name, made in written.items():
            state[name.removeprefix("next_")][:] = made


def _drawn(port: FramePort | StateTensor, random: np.random.Generator) -> Array:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        return random.uniform(-_SCALE, _SCALE, port.shape).astype(dtype)
    return random.integers(0, 2, port.shape).astype(dtype)


def shared_arrays(ports: Sequence[FramePort], choice: Mapping[str, float]) -> dict[str, Array]:
    """What rows share as tensors, each filled with its value."""
    return {port.name: np.full(port.shape, choice[port.name]).astype(port.dtype) for port in ports}
