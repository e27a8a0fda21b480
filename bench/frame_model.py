"""A model of voice activity with random weights: as large as those that are in use, nobody's own.

Frames of 32 ms at 16 kHz: a filter bank over the frame and the 64 samples before it, four
convolutions, one LSTM cell, a probability. Those are the shapes of silero-vad (MIT, version 5 and
6), which ``examples/`` fetches and serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bundle.manifest import (
    BATCH,
    SCHEMA_VERSION,
    STEP,
    ExportFacts,
    GraphSpec,
    Manifest,
    StateTensor,
    TensorSpec,
)
from bundle.stepping import EXACT, SteppingSpec
from bundle.store import (
    VOCABULARY_FILE,
    staged,
    write_manifest,
    write_vocabularies,
    write_weights,
)

NAME = "vad-like"
FRAME, CONTEXT, HIDDEN = 512, 64, 128
FRAME_SECONDS = 0.032
_BINS, _WINDOW, _HOP = 129, 256, 128
# Of the convolutions: what they give, and their strides.
_LAYERS = ((128, 1), (64, 2), (64, 2), (128, 1))
_OPSET = 18

_INPUTS = (
    TensorSpec("frame", "float32", (BATCH, FRAME)),
    TensorSpec("state", "float32", (BATCH, 2, HIDDEN)),
    TensorSpec("context", "float32", (BATCH, CONTEXT)),
)
_OUTPUTS = (
    TensorSpec("speech", "float32", (BATCH, 1)),
    TensorSpec("next_state", "float32", (BATCH, 2, HIDDEN)),
    TensorSpec("next_context", "float32", (BATCH, CONTEXT)),
)
_STATE = (
    StateTensor("state", "float32", (2, HIDDEN), carried=True),
    StateTensor("context", "float32", (CONTEXT,), carried=True),
)


def write_frame_model(models: Path) -> Path:
    """Write ``models/vad-like/1``; returns that folder."""
    place = models / NAME / "1"
    with staged(place) as folder:
        weights = write_weights(folder, {})
        (folder / "step.onnx").write_bytes(_graph().SerializeToString(deterministic=True))
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=NAME,
            version=1,
            task=STEP,
            description="Voice activity with random weights, to be measured.",
            model={},
            graphs={"step": GraphSpec("step.onnx", _INPUTS, _OUTPUTS)},
            weights=weights,
            state=_STATE,
            tokenizers=write_vocabularies(folder, {}),
            vocabulary_file=VOCABULARY_FILE,
            labels=(),
            vector=(),
            sampling={},
            limits={"message_steps": 64},
            figures=(),
            precisions={},
            data=(),
            training={},
            export=ExportFacts("", onnx.__version__, "", _OPSET, {}, 0.0),
            stepping=SteppingSpec(
                ("frame",), ("speech",), (), EXACT, 0.0, "", FRAME_SECONDS, {"sample_rate": 16000}
            ),
        )
        write_manifest(folder, manifest)
    return place


class _Nodes:
    """The graph as it grows; each method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._random = np.random.Generator(np.random.Philox(key=11))

    def weight(self, *shape: int) -> str:
        scale = 1.0 / np.sqrt(np.prod(shape[1:]))
        return self.constant(self._random.uniform(-scale, scale, shape).astype(np.float32))

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, *inputs: str, to: tuple[str, ...] = (), **attributes: Any) -> str:
        outputs = to or (f"made_{len(self.nodes)}",)
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


def _graph() -> onnx.ModelProto:
    nodes = _Nodes()
    window = nodes.add("Concat", "context", "frame", axis=1)
    end = nodes.ints(CONTEXT + FRAME)
    nodes.add("Slice", window, nodes.ints(FRAME), end, nodes.ints(1), to=("next_context",))
    wave = nodes.add("Unsqueeze", window, nodes.ints(1))
    padded = nodes.add("Pad", wave, nodes.ints(0, 0, 0, 0, 0, CONTEXT), mode="reflect")
    spectrum = nodes.add("Conv", padded, nodes.weight(2 * _BINS, 1, _WINDOW), strides=[_HOP])
    squared = nodes.add("Mul", spectrum, spectrum)
    halves = nodes.ints(_BINS, _BINS)
    nodes.add("Split", squared, halves, to=("real", "imaginary"), axis=1)
    made = nodes.add("Sqrt", nodes.add("Add", "real", "imaginary"))
    channels = _BINS
    for wide, stride in _LAYERS:
        weight, bias = nodes.weight(wide, channels, 3), nodes.weight(wide)
        made = nodes.add("Conv", made, weight, bias, strides=[stride], pads=[1, 1])
        made = nodes.add("Relu", made)
        channels = wide
    # (batch, channels, 1) to one step of (time, batch, channels)
    step = nodes.add("Transpose", made, perm=[2, 0, 1])
    hidden, cell = _states(nodes)
    gates = 4 * HIDDEN
    nodes.add(
        "LSTM", step, nodes.weight(1, gates, channels), nodes.weight(1, gates, HIDDEN),
        nodes.weight(1, 2 * gates), "", hidden, cell,
        to=("", "after_hidden", "after_cell"), hidden_size=HIDDEN,
    )  # fmt: skip
    both = nodes.add("Concat", "after_hidden", "after_cell", axis=0)
    nodes.add("Transpose", both, perm=[1, 0, 2], to=("next_state",))
    last = nodes.add("Relu", nodes.add("Squeeze", "after_hidden", nodes.ints(0)))
    logit = nodes.add("MatMul", last, nodes.weight(HIDDEN, 1))
    nodes.add("Sigmoid", logit, to=("speech",))
    graph = helper.make_graph(
        nodes.nodes, "step", _values(_INPUTS), _values(_OUTPUTS), nodes.constants
    )
    opset = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def _states(nodes: _Nodes) -> tuple[str, str]:
    """Hidden and cell state as the operator reads them: (1, batch, hidden) each."""
    turned = nodes.add("Transpose", "state", perm=[1, 0, 2])
    nodes.add("Split", turned, nodes.ints(1, 1), to=("before_hidden", "before_cell"), axis=0)
    return "before_hidden", "before_cell"


def _values(ports: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(port.name, TensorProto.FLOAT, port.shape) for port in ports
    ]
