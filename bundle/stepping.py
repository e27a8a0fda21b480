"""What a model of the task ``step`` reads and writes: numbers, a step at a time, one stream a row.

Its one graph ``step`` reads the frames of a step, what its rows share, and the state, and writes
answers and the carried state. Rows are the first axis of each but what is shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# How rows of a batch may be computed together. EXACT: to the bits of a row alone. INEXACT: close to
# them, which whoever exported the model has allowed. NONE: the graph goes through its rows one
# after the other, so that a row has the bits it has alone and a batch gains nothing.
EXACT, INEXACT, NONE = "exact", "inexact", "none"
BATCHING = (EXACT, INEXACT, NONE)

# The types that frames, answers and states may have.
DTYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool",
)  # fmt: skip

Number = int | float


@dataclass(frozen=True)
class SharedInput:
    """An input that all rows of a run share: streams of different values run apart.

    choices: the values that a stream may choose, the first one unless it says otherwise; each fills
    the whole of the tensor.
    """

    name: str
    choices: tuple[Number, ...]


@dataclass(frozen=True)
class SteppingSpec:
    """How a model is stepped; the tensors themselves are those of the graph ``step``.

    frames: the inputs that a stream sends, in the order of the graph's inputs. answers: the outputs
    that it gets back. shared: inputs that rows share. batching: of BATCHING. difference: the
    largest |a row among others - the row alone| that export measured. reason: why a batch is not
    exact; empty where it is. frame_seconds: of real time that a step stands for; 0 where it is not
    said. attributes: what clients may want to know, such as ``sample_rate`` or ``threshold``.
    """

    frames: tuple[str, ...]
    answers: tuple[str, ...]
    shared: tuple[SharedInput, ...]
    batching: str
    difference: float
    reason: str
    frame_seconds: float
    attributes: dict[str, int | float | str]

    @property
    def is_exact(self) -> bool:
        """Whether a row's bits are those it has alone."""
        return self.batching != INEXACT


def problem_of(spec: SteppingSpec) -> str | None:
    """What is wrong with ``spec`` by itself; None where nothing is."""
    if not spec.frames or not spec.answers:
        return "it needs a frame and an answer at least"
    if spec.batching not in BATCHING:
        return f"batching {spec.batching!r} is not one of {', '.join(BATCHING)}"
    if bool(spec.reason) == (spec.batching == EXACT):
        return "it needs a reason where batching is not exact, and none where it is"
    for what, number in (("difference", spec.difference), ("frame_seconds", spec.frame_seconds)):
        if not (math.isfinite(number) and number >= 0):
            return f"{what} is {number}, not a number from 0 on"
    for name, value in spec.attributes.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"the attribute {name!r} is {value}"
    for shared in spec.shared:
        if not shared.choices or len(set(shared.choices)) != len(shared.choices):
            return f"the choices of {shared.name!r} are {list(shared.choices)}"
    return None


def problem_of_choice(dtype: str, value: Number) -> str | None:
    """Why a tensor of ``dtype`` cannot hold ``value`` as it is; None where it can."""
    held = np.dtype(dtype)
    if not math.isfinite(value):
        fits = False
    elif held.kind == "f":
        fits = abs(value) <= float(np.finfo(held).max)
    elif held.kind == "b":
        fits = value in (0, 1)
    else:
        info = np.iinfo(held)
        fits = value == int(value) and info.min <= value <= info.max
    return None if fits else f"{value} is no {dtype}"
