"""Models of the reference server: arithmetic in NumPy, one for each way of answering."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.endpoint import Tensor
from conformance.tensors import FIELDS, RAW_ONLY

Arrays = dict[str, NDArray[Any]]
# Carried from request to request of a sequence.
State = dict[str, NDArray[Any]]
# Inputs and state in; outputs as often as the model answers. The state is changed in place.
Compute = Callable[[Arrays, State], Iterator[Arrays]]


@dataclass(frozen=True)
class ReferenceModel:
    """max_batch_size: 0 for a model whose first dimension is no batch."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    compute: Compute
    max_batch_size: int = 8
    is_decoupled: bool = False
    keeps_sequences: bool = False


def _sums(inputs: Arrays, _: State) -> Iterator[Arrays]:
    left, right = inputs["left"], inputs["right"]
    if left.shape != right.shape:
        raise ValueError(f"left has the shape {left.shape}, right {right.shape}; give them one")
    yield {"sum": left + right, "difference": left - right}


def _echo(inputs: Arrays, _: State) -> Iterator[Arrays]:
    yield {f"{name}_out": array for name, array in inputs.items()}


def repeat(inputs: Arrays, _: State, portion: int = 1) -> Iterator[Arrays]:
    """Its values, so many at a time."""
    values = inputs["values"]
    for first in range(0, len(values), portion):
        index = np.arange(first, min(first + portion, len(values)))
        yield {"value": values[index], "index": index}


def _accumulate(inputs: Arrays, state: State) -> Iterator[Arrays]:
    values = inputs["values"]
    before = state.get("total", np.zeros((len(values), 1), np.int64))
    totals = before + np.cumsum(values, axis=1)
    state["total"] = totals[:, -1:]
    yield {"total": state["total"], "totals": totals}


def _echo_model(name: str, datatypes: tuple[str, ...]) -> ReferenceModel:
    inputs = tuple(Tensor(kind.lower(), kind, (-1, 2)) for kind in datatypes)
    outputs = tuple(Tensor(f"{kind.lower()}_out", kind, (-1, 2)) for kind in datatypes)
    return ReferenceModel(name, inputs, outputs, _echo)


def _whole_numbers(shape: tuple[int, ...], *names: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, "INT64", shape) for name in names)


def _shout(inputs: Arrays, _: State) -> Iterator[Arrays]:
    texts = inputs["text"]
    loud = np.array([text.upper() for text in texts.flat], dtype=object)
    yield {"loud": loud.reshape(texts.shape)}


MODELS = (
    ReferenceModel(
        "sums",
        _whole_numbers((-1, -1), "left", "right"),
        _whole_numbers((-1, -1), "sum", "difference"),
        _sums,
    ),
    _echo_model("kinds", tuple(FIELDS)),
    _echo_model("halves", RAW_ONLY),
    ReferenceModel(
        "shout", (Tensor("text", "BYTES", (-1, 1)),), (Tensor("loud", "BYTES", (-1, 1)),), _shout
    ),
    ReferenceModel(
        "repeat",
        _whole_numbers((-1,), "values"),
        _whole_numbers((-1,), "value", "index"),
        repeat,
        max_batch_size=0,
        is_decoupled=True,
    ),
    ReferenceModel(
        "accumulate",
        _whole_numbers((-1, -1), "values"),
        (*_whole_numbers((-1, 1), "total"), *_whole_numbers((-1, -1), "totals")),
        _accumulate,
        keeps_sequences=True,
    ),
)
