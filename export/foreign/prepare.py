"""From a mapping to graphs that can be rewritten: files read, constants in, tensors named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.inliner import inline_local_functions

from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping
from export.foreign.rewrite import Prepared
from export.foreign.source import Source, read_source
from export.foreign.surgery import (
    fold_branches,
    lift_constants,
    real_inputs,
    refuse_choices_by_value,
    with_constants,
)
from export.foreign.trial import Found, constant_of, explore

_MOST_INITIAL_BYTES = 64 * 1024**2


def opened(mapping: GraphMapping) -> tuple[Source, ModelProto]:
    """The file, and its model with the constants of one value filled in.

    Raises ImportRefused, also for names that the graph does not have.
    """
    source = read_source(mapping.file)
    model = ModelProto()
    model.CopyFrom(source.model)
    if model.functions:
        model = inline_local_functions(model)
    inputs = {port.name: port for port in real_inputs(model.graph)}
    outputs = [port.name for port in model.graph.output]
    _check_there(mapping, inputs, outputs)
    listed = [port.name for port in model.graph.input if port.name not in inputs]
    with_constants(
        model.graph,
        {
            name: constant_of(inputs[name], values[0])
            for name, values in mapping.constants.items()
            if len(values) == 1
        },
    )
    kept = [port for port in model.graph.input if port.name not in listed]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    fold_branches(model)
    lift_constants(model.graph)
    rows = [port.name for port in real_inputs(model.graph) if port.name not in mapping.constants]
    refuse_choices_by_value(model.graph, rows)
    return source, model


def _check_there(mapping: GraphMapping, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    given = [
        *mapping.states, *mapping.constants, *mapping.inputs, *mapping.contexts, *mapping.axes,
        *mapping.shapes,
    ]  # fmt: skip
    for what, names, there in (
        ("input", given, list(inputs)),
        ("output", [*mapping.states.values(), *(mapping.outputs or ())], list(outputs)),
    ):
        for name in names:
            if name not in there:
                raise ImportRefused(
                    f"{mapping.file.name} has no {what} {name!r}; it has {', '.join(there)}"
                )


def prepared(mapping: GraphMapping, model: ModelProto, found: Found) -> Prepared:
    """found: of ``model`` by ``explore``."""
    frames = dict(mapping.inputs) or {
        name: name for name in found.inputs if name not in mapping.states
    }
    left = [name for name in found.outputs if name not in mapping.states.values()]
    answers = dict(zip(left, left, strict=True)) if mapping.outputs is None else mapping.outputs
    left = [name for name in found.inputs if name not in frames and name not in mapping.states]
    if left:
        raise ImportRefused(
            f"the input {left[0]!r} of {mapping.file.name} is neither frame, state nor constant; "
            "say which: --input, --state or --constant"
        )
    for name in mapping.contexts:
        if name not in frames:
            raise ImportRefused(f"{name!r} has a context, so it must be an input of frames")
        if mapping.contexts[name] >= found.inputs[name].shape[-1]:
            raise ImportRefused(
                f"{name!r} is {list(found.inputs[name].shape)}: a context of "
                f"{mapping.contexts[name]} leaves no room for a frame"
            )
        axis = found.inputs[name].axis
        if axis is not None and axis == len(found.inputs[name].shape) - 1:
            raise ImportRefused(f"the last axis of {name!r} is its batch's: it has no context")
    return Prepared(mapping, model, found, frames, answers, _initial(mapping, found))


def _initial(mapping: GraphMapping, found: Found) -> dict[str, NDArray[Any]]:
    values = {}
    for name, given in mapping.initial.items():
        port = found.inputs[name]
        if isinstance(given, str):
            value = _read_row(mapping.file.parent / given)
            if value.shape not in (port.row_shape, port.shape) or str(value.dtype) != port.dtype:
                raise ImportRefused(
                    f"{given} holds {value.dtype} {list(value.shape)}; a row of {name!r} is "
                    f"{port.dtype} {list(port.row_shape)}"
                )
            value = value.reshape(port.row_shape)
        else:
            value = np.full(port.row_shape, given, port.dtype)
        if value.any():
            values[name] = value
    return values


def _read_row(path: Path) -> NDArray[Any]:
    try:
        if path.stat().st_size > _MOST_INITIAL_BYTES:
            raise ImportRefused(f"{path} has more than {_MOST_INITIAL_BYTES // 1024**2} MiB")
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImportRefused(f"{path} is no array of NumPy (.npy): {error}") from error
    if not isinstance(value, np.ndarray) or not np.isfinite(value.astype(np.float64)).all():
        raise ImportRefused(f"{path} holds NaN or infinity, or no array")
    return value


def explored(mappings: Iterable[GraphMapping]) -> tuple[list[Source], list[Prepared]]:
    """Each graph of a mapping, read and tried. Raises ImportRefused."""
    sources, stages = [], []
    for mapping in mappings:
        source, model = opened(mapping)
        found = explore(model, mapping)
        sources.append(source)
        stages.append(prepared(mapping, model, found))
    return sources, stages
