"""What a graph's tensors are, found by running it: shapes, types, and the axis of the batch.

Declared shapes are where it begins and not what is believed: exporters write dims of 0, leave axes
nameless that are fixed, and name none of the axes that grow with the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper

from bundle.stepping import DTYPES
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping
from export.foreign.surgery import (
    free_batch,
    open_model,
    real_inputs,
    with_free_reshapes,
)

Array = NDArray[Any]
Arrays = dict[str, Array]

_BATCH_NAMES = ("batch", "batch_size", "batchsize", "n", "b", "bs")
# Lengths of an open last axis, the likeliest first: samples of a frame.
_FRAME_SIZES = (512, 480, 400, 320, 256, 160, 1024, 80, 64, 40, 1)
_MOST_TRIALS = 256
_MOST_ROW_BYTES = 64 * 1024**2
_ROWS = 3

# Of the largest number of a tensor: what rows of a batch may differ by, at most, and still be
# called close. Rows that are mixed up differ by more.
CLOSE = 0.05


@dataclass(frozen=True)
class Port:
    """One input or output. shape: for one row, its batch axis 1. axis: of the batch, None where
    none was found.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Without the batch axis; the whole where it has none."""
        if self.axis is None:
            return self.shape
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]


@dataclass(frozen=True)
class Found:
    """What trying a graph has found.

    inputs, outputs: by name, what is constant left out. reshapes: whether its Reshapes must keep
    their first axis for rows to run together. problem: why rows do not run together; empty where
    they do. said: guesses, to be printed.
    """

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    reshapes: bool = False
    problem: str = ""
    said: tuple[str, ...] = field(default=())


def dtype_of(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    try:
        name = str(helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, TypeError) as error:
        raise ImportRefused(f"{value.name!r} is of ONNX's type {kind}") from error
    if name not in DTYPES:
        raise ImportRefused(f"{value.name!r} is of type {name}, not one of {', '.join(DTYPES)}")
    return name


def declared_dims(value: ValueInfoProto) -> list[int | str]:
    """A number, the name of a free axis, or "" where nothing or nonsense (0) is said."""
    return [
        dim.dim_value if dim.dim_value > 0 else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    ]


def constant_of(port: ValueInfoProto, value: float) -> Array:
    """The tensor that a constant fills."""
    shape = [size if isinstance(size, int) else 1 for size in declared_dims(port)]
    return np.full(shape, value, dtype_of(port))


def explore(model: ModelProto, mapping: GraphMapping, ids: int = 2, batched: bool = True) -> Found:
    """model: of which the constants with one value are initializers already; it stays as it is.

    ids: whole numbers below it are fed to inputs. batched: whether to look for the batch axes.

    Raises ImportRefused where it does not even run one row.
    """
    ports = {port.name: port for port in real_inputs(model.graph)}
    choices = {
        name: constant_of(ports[name], values[0])
        for name, values in mapping.constants.items()
        if name in ports
    }
    open_ports = {name: port for name, port in ports.items() if name not in choices}
    session = open_model(_freed(model, False).SerializeToString())
    inputs, outputs, said = _shapes(session, mapping, open_ports, choices, ids)
    found = Found(inputs, outputs, said=said)
    if not batched:
        return found
    problem = ""
    for reshapes in (False, True):
        if reshapes:
            freed = _freed(model, True)
            if freed is None:
                break
            try:
                session = open_model(freed.SerializeToString())
            except Exception as error:
                problem = problem or _short(error)
                break
        tried = _axes(session, mapping, open_ports, found, choices, ids)
        if not isinstance(tried, str):
            return replace(tried, reshapes=reshapes)
        problem = problem or tried
    return replace(_guessed(mapping, open_ports, found), problem=problem)


def _freed(model: ModelProto, reshapes: bool) -> Any:
    """A copy that takes any shape; None where Reshapes are to be freed and there is none."""
    copy = ModelProto()
    copy.CopyFrom(model)
    free_batch(copy.graph)
    if reshapes and not with_free_reshapes(copy.graph):
        return None
    return copy


def _shapes(
    session: onnxruntime.InferenceSession,
    mapping: GraphMapping,
    ports: Mapping[str, ValueInfoProto],
    choices: Arrays,
    ids: int,
) -> tuple[dict[str, Port], dict[str, Port], tuple[str, ...]]:
    names = [port.name for port in session.get_outputs()]
    first = ""
    for shapes, said in _candidates(mapping, ports):
        inputs = {n: Port(n, dtype_of(p), shapes[n]) for n, p in ports.items()}
        _check_sizes(inputs.values())
        random = np.random.default_rng(0)
        feed = {n: random_of(p, p.shape, random, ids) for n, p in inputs.items()}
        try:
            found = session.run(None, {**feed, **choices})
        except Exception as error:  # onnxruntime raises a class of its own for each status
            first = first or _short(error)
            continue
        # A state comes back as it must be given: another shape is that of the state.
        after = dict(zip(names, found, strict=True))
        wrong = [(i, o) for i, o in mapping.states.items() if after[o].shape != inputs[i].shape]
        if wrong:
            given, made = wrong[0]
            first = first or (
                f"the state {given!r} is {list(inputs[given].shape)} and comes back as {made!r} "
                f"with {list(after[made].shape)}; say --shape {given}=…"
            )
            continue
        outputs = {n: Port(n, str(a.dtype), a.shape) for n, a in after.items()}
        _check_sizes(outputs.values())
        return inputs, outputs, said
    raise ImportRefused(f"{mapping.file.name} does not run one row: {first}")


def _check_sizes(ports: Any) -> None:
    for port in ports:
        size = int(np.prod(port.shape, dtype=np.float64)) * np.dtype(port.dtype).itemsize
        if len(port.shape) > 8 or size > _MOST_ROW_BYTES:
            raise ImportRefused(
                f"{port.name!r} has the shape {list(port.shape)} for one row; at most 8 axes and "
                f"{_MOST_ROW_BYTES // 1024**2} MiB are taken"
            )
        if 0 in port.shape:
            raise ImportRefused(f"{port.name!r} is empty for one row: {list(port.shape)}")


def _candidates(
    mapping: GraphMapping, ports: Mapping[str, ValueInfoProto]
) -> Iterator[tuple[dict[str, tuple[int, ...]], tuple[str, ...]]]:
    """Shapes to try for one row, and what was guessed of them."""
    open_last = [
        name
        for name, port in ports.items()
        if name not in mapping.states
        and name not in mapping.shapes
        and len(declared_dims(port)) > 1
        and not isinstance(declared_dims(port)[-1], int)
    ]
    for size in _FRAME_SIZES if open_last else (1,):
        shapes: dict[str, tuple[int, ...]] = {}
        said = []
        for name, port in ports.items():
            dims = declared_dims(port)
            shape = [dim if isinstance(dim, int) else 1 for dim in dims]
            if name in open_last:
                shape[-1] = size + mapping.contexts.get(name, 0)
            shape = list(mapping.shapes.get(name, shape))
            if len(shape) != len(dims):
                raise ImportRefused(f"{name!r} has {len(dims)} axes, --shape {name} {len(shape)}")
            shapes[name] = tuple(shape)
            if name not in mapping.shapes and any(not isinstance(dim, int) for dim in dims[1:]):
                given = ",".join(map(str, shape))
                said.append(f"{name} is taken to be {shape} (--shape {name}={given})")
        yield shapes, tuple(said)


def _axes(
    session: onnxruntime.InferenceSession,
    mapping: GraphMapping,
    ports: Mapping[str, ValueInfoProto],
    found: Found,
    choices: Arrays,
    ids: int,
) -> Found | str:
    """With batch axes that rows run together along; or why there are none."""
    names = list(ports)
    options = [_options(mapping, ports[name], found.inputs[name]) for name in names]
    for name, axes in zip(names, options, strict=True):
        if not axes:
            return f"{name!r} has no axis of 1 that could be the batch's"
    problem = ""
    for combination in itertools.islice(itertools.product(*options), _MOST_TRIALS):
        inputs = {
            name: replace(found.inputs[name], axis=axis)
            for name, axis in zip(names, combination, strict=True)
        }
        tried = _run_together(session, mapping, found, inputs, choices, ids)
        if not isinstance(tried, str):
            return tried
        problem = problem or tried
    return problem


def _options(mapping: GraphMapping, port: ValueInfoProto, one: Port) -> list[int]:
    """Axes that may be the batch's, the likeliest first."""
    if port.name in mapping.axes:
        axis = mapping.axes[port.name]
        if axis >= len(one.shape) or one.shape[axis] != 1:
            raise ImportRefused(
                f"{port.name!r} is {list(one.shape)} for one row: axis {axis} is not its batch's"
            )
        return [axis]
    dims = declared_dims(port)
    named = [n for n, dim in enumerate(dims) if str(dim).lower() in _BATCH_NAMES]
    if named:
        return named[:1]
    single = [n for n, size in enumerate(one.shape) if size == 1]
    return sorted(single, key=lambda n: (isinstance(dims[n], int), n))


def _guessed(mapping: GraphMapping, ports: Mapping[str, ValueInfoProto], found: Found) -> Found:
    """With the axes of 1 to leave out of a row, where rows do not run together."""
    inputs = {
        name: replace(port, axis=next(iter(_options(mapping, ports[name], port)), None))
        for name, port in found.inputs.items()
    }
    outputs = {
        name: replace(port, axis=0 if port.shape[:1] == (1,) else None)
        for name, port in found.outputs.items()
    }
    for state, output in mapping.states.items():
        outputs[output] = replace(outputs[output], axis=inputs[state].axis)
    return replace(found, inputs=inputs, outputs=outputs)


def _run_together(
    session: onnxruntime.InferenceSession,
    mapping: GraphMapping,
    found: Found,
    inputs: Mapping[str, Port],
    choices: Arrays,
    ids: int,
) -> Found | str:
    random = np.random.default_rng(1)
    names = [port.name for port in session.get_outputs()]
    rows = [
        {name: random_of(port, port.shape, random, ids) for name, port in inputs.items()}
        for _ in range(_ROWS)
    ]
    together = {
        name: np.concatenate([row[name] for row in rows], axis=port.axis)
        for name, port in inputs.items()
    }
    try:
        several = dict(zip(names, session.run(None, {**together, **choices}), strict=True))
    except Exception as error:
        return f"{_ROWS} rows do not run together: {_short(error)}"
    outputs = {}
    for name, port in found.outputs.items():
        shape = several[name].shape
        grown = [n for n, (a, b) in enumerate(zip(port.shape, shape, strict=False)) if a != b]
        if len(shape) != len(port.shape) or len(grown) != 1 or shape[grown[0]] != _ROWS:
            return f"{name!r} is {list(shape)} of {_ROWS} rows and {list(port.shape)} of one"
        outputs[name] = replace(port, axis=grown[0])
    for row, feed in enumerate(rows):
        alone = dict(zip(names, session.run(None, {**feed, **choices}), strict=True))
        for name, port in outputs.items():
            part = several[name].take([row], axis=port.axis)
            if not is_close(alone[name], part):
                return f"{name!r} of a row differs by {largest(alone[name], part):.2g} in a batch"
    for state, output in mapping.states.items():
        if outputs[output].row_shape != inputs[state].row_shape:
            return f"the state {state!r} does not come back in its shape"
    return replace(found, inputs=inputs, outputs=outputs)


def random_of(port: Port, shape: Sequence[int], random: np.random.Generator, ids: int = 2) -> Array:
    """Ordinary numbers of a port's type: small ones around zero, ids below ``ids``, or flags."""
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        return random.normal(0, 0.3, tuple(shape)).astype(dtype)
    if dtype.kind == "b":
        return random.random(tuple(shape)) < 0.5
    least = min(ids, int(np.iinfo(dtype).max))
    return random.integers(0, least, tuple(shape)).astype(dtype)


def largest(one: Array, other: Array) -> float:
    """The largest difference; NaN where only one of them is."""
    delta = np.abs(_wide(one) - _wide(other))
    return float(np.where((one == other) | _both_nan(one, other), 0, delta).max(initial=0.0))


def worst_of(*figures: float) -> float:
    """The largest, at least 0; NaN where one of them is, which Python's own max may pass over."""
    return float(np.max(figures, initial=0.0))


def is_close(one: Array, other: Array) -> bool:
    return largest(one, other) <= CLOSE * float(np.abs(_wide(one)).max(initial=0.0))


def _wide(array: Array) -> Array:
    wide: Array = array.astype(np.float64)
    return wide


def _both_nan(one: Array, other: Array) -> Array:
    both: Array = np.isnan(_wide(one)) & np.isnan(_wide(other))
    return both


def _short(error: Exception) -> str:
    """An error of onnxruntime on one line, without the places in its sources."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}…"
