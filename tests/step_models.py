"""Tiny models of the task ``step``, as bundles: what tests of stepping run on.

A leaky integrator: ``total`` ← decay · ``total`` + gain · ``frame``; the answer ``mean`` is its
mean over the row and ``level`` the total itself, ``count`` counts the steps of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bundle.manifest import (
    BATCH,
    ROWS,
    SCHEMA_VERSION,
    STEP,
    ExportFacts,
    GraphSpec,
    Manifest,
    StateTensor,
    TensorSpec,
)
from bundle.stepping import EXACT, SharedInput, SteppingSpec
from bundle.store import (
    Bundle,
    read_bundle,
    staged,
    write_manifest,
    write_vocabularies,
    write_weights,
)
from export.rows import write_rows_graph

DECAY = 0.5
FRAME = 4
STATE = (
    StateTensor("total", "float32", (FRAME,), carried=True),
    StateTensor("count", "int64", (), carried=True),
)


def write_step_bundle(
    models: Path,
    name: str = "leaky",
    version: int = 1,
    gains: tuple[float, ...] = (),
    batching: str = EXACT,
    frame_seconds: float = 0.032,
    attributes: Mapping[str, int | float | str] | None = None,
    message_steps: int = 64,
) -> Bundle:
    """``models/NAME/VERSION``. gains: the choices of an input that rows share; none: it is 1."""
    decay = np.array(DECAY, np.float32)
    with staged(models / name / str(version)) as folder:
        weights = write_weights(folder, {"decay": decay})
        graph = _write_graph(folder, weights.file, has_gain=bool(gains))
        spec = SteppingSpec(
            frames=("frame",),
            answers=("mean", "level"),
            shared=(SharedInput("gain", gains),) if gains else (),
            batching=batching,
            difference=0.0,
            reason="" if batching == EXACT else "a test says so",
            frame_seconds=frame_seconds,
            attributes=dict(attributes or {}),
        )
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            version=version,
            task=STEP,
            description="A leaky integrator.",
            model={},
            graphs={"step": graph, ROWS: write_rows_graph(STATE, folder)},
            weights=weights,
            state=STATE,
            tokenizers=write_vocabularies(folder, {}),
            vocabulary_file="vocabulary.json",
            labels=(),
            vector=(),
            sampling={},
            limits={"message_steps": message_steps},
            figures=(),
            precisions={},
            data=(),
            training={},
            export=ExportFacts("none", "none", "none", 18, {}, 0.0),
            stepping=spec,
        )
        write_manifest(folder, manifest)
    return read_bundle(models / name / str(version))


def expected_levels(frames: NDArray[Any], gain: float = 1.0) -> NDArray[Any]:
    """(steps, FRAME) the answer ``level`` to each of ``frames``, from a new stream's state."""
    total, levels = np.zeros(FRAME, np.float32), []
    for frame in frames.astype(np.float32):
        total = total * np.float32(DECAY) + frame * np.float32(gain)
        levels.append(total)
    return np.array(levels)


def _write_graph(folder: Path, weights_file: str, has_gain: bool) -> GraphSpec:
    gain = (TensorSpec("gain", "float32", ()),) if has_gain else ()
    inputs = (
        TensorSpec("frame", "float32", (BATCH, FRAME)),
        *gain,
        TensorSpec("total", "float32", (BATCH, FRAME)),
        TensorSpec("count", "int64", (BATCH,)),
    )
    outputs = (
        TensorSpec("mean", "float32", (BATCH,)),
        TensorSpec("level", "float32", (BATCH, FRAME)),
        TensorSpec("next_total", "float32", (BATCH, FRAME)),
        TensorSpec("next_count", "int64", (BATCH,)),
    )
    frame = "gained" if has_gain else "frame"
    nodes = [
        *([helper.make_node("Mul", ["frame", "gain"], ["gained"])] if has_gain else []),
        helper.make_node("Mul", ["total", "decay"], ["left"]),
        helper.make_node("Add", ["left", frame], ["next_total"]),
        helper.make_node("Identity", ["next_total"], ["level"]),
        helper.make_node("ReduceMean", ["next_total", "axis"], ["mean"], keepdims=0),
        helper.make_node("Add", ["count", "one"], ["next_count"]),
    ]
    decay = TensorProto(name="decay", data_type=TensorProto.FLOAT)
    decay.data_location = TensorProto.EXTERNAL
    for key, value in (("location", weights_file), ("offset", "0"), ("length", "4")):
        decay.external_data.add(key=key, value=value)
    constants = [
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array(1), "one"),
        decay,
    ]
    graph = helper.make_graph(nodes, "step", _values(inputs), _values(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "step.onnx").write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(folder / "step.onnx"))
    return GraphSpec("step.onnx", inputs, outputs)


def _values(ports: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape
        )
        for port in ports
    ]
