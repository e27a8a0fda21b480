"""Requests for a model known by its metadata alone: a guess, and what varies it.

The guess: a dimension of -1 is 1 where it is the batch and 3 elsewhere. Numbers are 1, BOOL is
true, BYTES the word "bad". An input whose name ends in "length" or "lengths" holds the size of
the variable dimension of the input that it is named after, else of the first that has one.
Optional inputs are left out; where all are optional, only the states are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance import protocol as pb
from conformance.endpoint import Model, Tensor
from conformance.tensors import BYTES, RAW_ONLY, to_array, to_contents, to_raw

Arrays = Mapping[str, NDArray[Any]]
# Of a variable dimension that is not the batch.
SMALL = 3
WORD = "bad"
OTHER_WORD = "good"
_LENGTHS = re.compile(r"^(.*?)[_.-]?lengths?$", re.IGNORECASE)


def guess(model: Model, rows: int = 1, time: int = SMALL) -> dict[str, NDArray[Any]]:
    """Arrays for the inputs that a request needs. time: of variable dimensions but the batch."""
    needed = inputs_needed(model)
    return {t.name: _guess_tensor(model, t, rows, time) for t in needed}


def inputs_needed(model: Model) -> list[Tensor]:
    required = [t for t in model.inputs if t.name not in model.optional]
    return required or [t for t in model.inputs if t.name not in model.states]


def _guess_tensor(model: Model, tensor: Tensor, rows: int, time: int) -> NDArray[Any]:
    shape = _shape(model, tensor, rows, time)
    measured = _measured(model, tensor)
    if measured is not None:
        axis = time_axis(model, measured)
        size = 1 if axis is None else _shape(model, measured, rows, time)[axis]
        return np.full(shape, to_array(tensor.datatype, size))
    return np.full(shape, to_array(tensor.datatype, WORD if tensor.datatype == BYTES else 1))


def _shape(model: Model, tensor: Tensor, rows: int, time: int) -> tuple[int, ...]:
    variable = [rows if _is_batch(model, axis) else time for axis in range(len(tensor.shape))]
    return tuple(v if size < 0 else size for v, size in zip(variable, tensor.shape, strict=True))


def _is_batch(model: Model, axis: int) -> bool:
    # A leading -1 is the batch nearly everywhere that no ModelConfig says otherwise.
    return axis == 0 and (model.has_batch or model.max_batch_size is None)


def time_axis(model: Model, tensor: Tensor) -> int | None:
    """The first variable dimension that is not the batch."""
    axes = [a for a, size in enumerate(tensor.shape) if size < 0 and not _is_batch(model, a)]
    return axes[0] if axes else None


def _measured(model: Model, lengths: Tensor) -> Tensor | None:
    """The input whose size ``lengths`` states; None where it is no tensor of lengths."""
    match = _LENGTHS.match(lengths.name)
    if match is None or lengths.datatype == BYTES:
        return None
    others = [t for t in model.inputs if t.name != lengths.name]
    named = [t for t in others if t.name == match[1]]
    timed = [t for t in others if time_axis(model, t) is not None]
    return (*named, *timed, lengths)[0]


def varied(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Other contents of the same shapes. Lengths stay: the shapes they state do."""
    return {n: a if _LENGTHS.match(n) else _other(a) for n, a in arrays.items()}


def _other(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == object:
        other = to_array(BYTES, OTHER_WORD)[()]
        return np.full(array.shape, other, dtype=object)
    return ~array if array.dtype == bool else array + array.dtype.type(1)


def stacked(*rows: Arrays) -> dict[str, NDArray[Any]]:
    """One batch of the rows of several."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def build(
    model: Model,
    arrays: Arrays,
    raw: bool = True,
    id: str = "",
    version: str = "",
    outputs: Sequence[str] = (),
    parameters: Mapping[str, object] | None = None,
) -> pb.ModelInferRequest:
    """A request of ``arrays``, contents raw or typed."""
    request = pb.ModelInferRequest(model_name=model.name, model_version=version, id=id)
    for name in outputs:
        request.outputs.add(name=name)
    set_parameters(request, parameters or {})
    for tensor in model.inputs:
        if tensor.name in arrays:
            _add_input(request, tensor, arrays[tensor.name], raw)
    return request


def _add_input(
    request: pb.ModelInferRequest, tensor: Tensor, array: NDArray[Any], raw: bool
) -> None:
    added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
    if raw:
        request.raw_input_contents.append(to_raw(tensor.datatype, array))
    else:
        added.contents.CopyFrom(to_contents(tensor.datatype, array))


def set_parameters(request: pb.ModelInferRequest, parameters: Mapping[str, object]) -> None:
    """Each as its own type's choice: bool, int64, string or double."""
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], kinds[type(value)], value)


def has_typed(model: Model, arrays: Arrays) -> bool:
    """Whether every tensor has a field of typed contents."""
    return not any(t.datatype in RAW_ONLY for t in model.inputs if t.name in arrays)
