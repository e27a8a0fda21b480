"""Moves the weights of foreign graphs into a bundle's one weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from bundle.manifest import Weights
from bundle.store import write_weights

# Smaller ones stay in the graph: shapes, axes, single numbers.
_LEAST_BYTES = 1024

_STORED = frozenset(
    (
        "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool",
    )
)  # fmt: skip


def write_weights_of(models: Mapping[str, ModelProto], folder: Path) -> Weights:
    """Write each model under its file's name, its weights beside them; in place.

    Equal tensors of several graphs lie there once. What a weights file cannot hold, other types
    and infinities, stays in the graph.
    """
    tensors: dict[str, NDArray[Any]] = {}
    places: list[tuple[TensorProto, str]] = []
    stored: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for model in models.values():
        for tensor in model.graph.initializer:
            array = _storable(tensor)
            if array is None:
                continue
            key = (str(array.dtype), array.shape, array.tobytes())
            name = stored.get(key)
            if name is None:
                name = (
                    tensor.name if tensor.name not in tensors else f"{tensor.name}~{len(tensors)}"
                )
                stored[key], tensors[name] = name, array
            places.append((tensor, name))
    weights = write_weights(folder, tensors)
    for tensor, name in places:
        _refer(tensor, weights, name, tensors[name].nbytes)
    for file, model in models.items():
        (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    return weights


def _storable(tensor: TensorProto) -> NDArray[Any] | None:
    if tensor.ByteSize() < _LEAST_BYTES or tensor.data_type == TensorProto.STRING:
        return None
    array = np.asarray(numpy_helper.to_array(tensor))
    if str(array.dtype) not in _STORED:
        return None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return None
    return array


def _refer(tensor: TensorProto, weights: Weights, name: str, size: int) -> None:
    place = weights.tensors[name]
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", weights.file),
        ("offset", str(place.offset)),
        ("length", str(size)),
    ):
        tensor.external_data.add(key=key, value=value)
