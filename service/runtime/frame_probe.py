"""The probe of a model that is stepped over numbers: as ``probe.py``, for a graph from elsewhere.

What its numbers mean is not known, so they are drawn small. Several steps are taken, so that states
are not zero when rows among others are compared with rows alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
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
    """Step rows alone and together with each choice of what they share.

    runners: that must compute the same, the usual one first. is_promised: whether rows that differ
    among others are more than was said; then none of its batches is invariant.

    Raises OutputNotFinite, and whatever onnxruntime does.
    """
    hashed, invariant = hashlib.sha256(), is_promised
    for shared in range(choices):
        alone = list(_steps_of(runners[0], model, shared, 1))
        for outputs in alone:
            for name, rows in outputs.items():
                if rows.dtype.kind == "f" and np.isnan(rows).any():
                    raise OutputNotFinite(f"graph 'step' computes NaN as {name!r}")
                hashed.update(rows.tobytes())
        together = [_steps_of(r, model, shared, rows) for r in runners for rows in _BATCHES]
        for steps in together if is_promised else ():
            invariant &= all(
                found[name][:1].tobytes() == wanted[name].tobytes()
                for wanted, found in zip(alone, steps, strict=True)
                for name in wanted
            )
    return ProbeResult(invariant, hashed.hexdigest())


def _steps_of(
    runner: FrameRunner, model: StepModel, shared: int, rows: int
) -> Iterator[dict[str, Array]]:
    """What several steps of so many rows give; the first row is the same whatever their number."""
    random = [np.random.Generator(np.random.Philox(key=7 + row)) for row in range(rows)]
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
