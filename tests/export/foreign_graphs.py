"""Tiny graphs as others export them, each with one of the peculiarities that are met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper, parser

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'

# A leaky integrator of a fixed batch of one.
LEAKY = """leaky (float[1,4] x, float[1,4] s) => (float[1,4] y, float[1,4] s_out)
<float half = {0.5}> {
  left = Mul(s, half)
  s_out = Add(left, x)
  y = Relu(s_out)
}"""

# The batch lies on axis 0 of the frame, 1 of the state, 2 of the answer; the state is float16, and
# a second one counts in int32.
AXES = """axes (float[batch,4] x, float16[2,batch,4] s, int32[batch] n)
  => (float[4,1,batch] y, float16[2,batch,4] s_out, int32[batch] n_out)
<float half = {0.5}, int32 one = {1}> {
  wide = Cast<to = 1>(s)
  left = Mul(wide, half)
  added = Add(left, x)
  s_out = Cast<to = 10>(added)
  summed = ReduceSum<keepdims = 0>(added, zero)
  turned = Transpose<perm = [1, 0]>(summed)
  y = Unsqueeze(turned, one64)
  n_out = Add(n, one)
}"""

# Rows are mixed: each answer is the mean over the batch.
MIXED = """mixed (float[batch,4] x, float[batch,4] s) => (float[batch,4] y, float[batch,4] s_out) {
  s_out = Add(s, x)
  mean = ReduceMean<axes = [0]>(s_out)
  y = Sub(s_out, mean)
}"""

# Rows beyond the eighth of a batch are NaN; alone no row is.
CROWDED = """crowded (float[batch,4] x, float[batch,4] s)
  => (float[batch,4] y, float[batch,4] s_out)
<float none = {0.0}, float unit = {1.0}, float most = {8.0}, float below = {-1.0},
  int64 axis = {0}> {
  s_out = Add(s, x)
  zeros = Mul(x, none)
  ones = Add(zeros, unit)
  places = CumSum(ones, axis)
  is_late = Greater(places, most)
  nan = Log(below)
  y = Where(is_late, nan, s_out)
}"""

# A sample rate chooses between two networks.
RATES = """rates (float[batch,4] x, float[batch,4] s, int64 sr)
  => (float[batch,4] y, float[batch,4] s_out)
<int64 wide = {16000}> {
  is_wide = Equal(sr, wide)
  y, s_out = If (is_wide) <
    then_branch = wide_band () => (y1, s1) { s1 = Add(s, x) y1 = Relu(s1) },
    else_branch = narrow_band () => (y2, s2) { s2 = Sub(s, x) y2 = Neg(s2) }
  >
}"""

# The values of a frame choose a branch.
CHOOSING = """choosing (float[batch,4] x, float[batch,4] s)
  => (float[batch,4] y, float[batch,4] s_out)
<float zero = {0.0}> {
  sum = ReduceSum<keepdims = 0>(x)
  is_loud = Greater(sum, zero)
  s_out = Add(s, x)
  y = If (is_loud) <
    then_branch = loud () => (y1) { y1 = Relu(s_out) },
    else_branch = quiet () => (y2) { y2 = Neg(s_out) }
  >
}"""

# A sum over six samples of which two are those of the step before.
WINDOW = """window (float[batch,6] x) => (float[batch,1] y) {
  y = ReduceSum<keepdims = 1>(x, last)
}"""

NOT_FINITE = """broken (float[batch,4] x, float[batch,4] s)
  => (float[batch,4] y, float[batch,4] s_out) {
  s_out = Add(s, x)
  y = Log(s_out)
}"""

_TENSORS: dict[str, NDArray[Any]] = {
    "zero": np.array([0], np.int64), "one64": np.array([1], np.int64),
    "last": np.array([1], np.int64),
}  # fmt: skip


def graph(text: str) -> ModelProto:
    """The model of a text of ONNX's own notation."""
    model = parser.parse_model(HEADER + text)
    read = {name for node in model.graph.node for name in node.input}
    held = {tensor.name for tensor in model.graph.initializer}
    for name in sorted((read & _TENSORS.keys()) - held):
        model.graph.initializer.append(numpy_helper.from_array(_TENSORS[name], name))
    return model


def written(path: Path, text: str) -> Path:
    path.write_bytes(graph(text).SerializeToString())
    return path


def lstm(path: Path, inputs: int = 5, hidden: int = 6) -> Path:
    """One LSTM step of a fixed batch of one, time first, as PyTorch exports it: the Reshapes hold
    the batch."""
    random = np.random.default_rng(0)
    tensors = {
        "w": random.normal(0, 0.5, (1, 4 * hidden, inputs)),
        "r": random.normal(0, 0.5, (1, 4 * hidden, hidden)),
        "b": random.normal(0, 0.5, (1, 8 * hidden)),
    }
    shapes = {"to": [1, 1, inputs], "back": [1, hidden]}
    nodes = [
        helper.make_node("Reshape", ["x", "to"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["first"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["first", "w", "r", "b", "", "h", "c"], ["", "hn", "cn"], hidden_size=hidden
        ),
        helper.make_node("Transpose", ["hn"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["rows", "back"], ["y"]),
    ]

    def port(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    made = helper.make_graph(
        nodes,
        "lstm",
        [port("x", 1, inputs), port("h", 1, 1, hidden), port("c", 1, 1, hidden)],
        [port("y", 1, hidden), port("hn", 1, 1, hidden), port("cn", 1, 1, hidden)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items()]
        + [numpy_helper.from_array(np.array(s, np.int64), n) for n, s in shapes.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())
    return path


def language_model(
    path: Path, vocabulary: int, hidden: int = 6, ends_in: str = "logits", is_free: bool = True
) -> Path:
    """An LSTM's step over a token: time first inside, its state (1, batch, hidden), its logits
    (batch, 1, vocabulary). is_free: with a batch of any size; else of one, in a Reshape too."""
    random = np.random.default_rng(1)
    tensors = {
        "table": random.normal(0, 1, (vocabulary, 5)),
        "w": random.normal(0, 0.5, (1, 4 * hidden, 5)),
        "r": random.normal(0, 0.5, (1, 4 * hidden, hidden)),
        "b": random.normal(0, 0.5, (1, 8 * hidden)),
        "head": random.normal(0, 1, (hidden, vocabulary)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["first"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["first", "w", "r", "b", "", "h", "c"], ["", "h_out", "c_out"],
            hidden_size=hidden,
        ),
        helper.make_node("Transpose", ["h_out"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["rows", "head"], ["scores"]),
        helper.make_node("Identity", ["scores"], ["logits"])
        if ends_in == "logits"
        else helper.make_node("Softmax", ["scores"], [ends_in], axis=-1),
    ]  # fmt: skip
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items()]
    batch: int | str = "N" if is_free else 1
    if not is_free:
        constants.append(numpy_helper.from_array(np.array([1, 1, hidden], np.int64), "one"))
        nodes[3] = helper.make_node("Reshape", ["h_out", "one"], ["rows"], allowzero=1)

    def port(name: str, *shape: int | str, kind: int = onnx.TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    made = helper.make_graph(
        nodes,
        "language_model",
        [
            port("input_ids", batch, 1, kind=onnx.TensorProto.INT64),
            port("h", 1, batch, hidden),
            port("c", 1, batch, hidden),
        ],
        [port(ends_in, batch, 1, vocabulary), port("h_out", 1, batch, hidden),
         port("c_out", 1, batch, hidden)],
        constants,
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())
    return path


def classifier(path: Path, vocabulary: int, labels: int, told: str = "", hidden: int = 5) -> Path:
    """An LSTM over texts, its last state to logits. told: ``lengths`` or ``mask`` says where texts
    end; empty where nothing does."""
    random = np.random.default_rng(2)
    tensors = {
        "table": random.normal(0, 1, (vocabulary, 4)),
        "w": random.normal(0, 0.5, (1, 4 * hidden, 4)),
        "r": random.normal(0, 0.5, (1, 4 * hidden, hidden)),
        "b": random.normal(0, 0.5, (1, 8 * hidden)),
        "head": random.normal(0, 2, (hidden, labels)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["first"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["first", "w", "r", "b", "ends" if told else ""], ["", "last"],
            hidden_size=hidden,
        ),
        helper.make_node("Squeeze", ["last", "zero"], ["rows"]),
        helper.make_node("MatMul", ["rows", "head"], ["logits"]),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["b", "t"])]
    if told == "lengths":
        nodes.insert(0, helper.make_node("Identity", ["lengths"], ["ends"]))
        inputs.append(helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, ["b"]))
    elif told == "mask":
        nodes.insert(0, helper.make_node("Cast", ["summed"], ["ends"], to=onnx.TensorProto.INT32))
        nodes.insert(0, helper.make_node("ReduceSum", ["mask", "one"], ["summed"], keepdims=0))
        inputs.append(helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ["b", "t"]))
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items()]
    constants += [
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in (("zero", 0), ("one", 1))
    ]
    output = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["b", labels])
    made = helper.make_graph(nodes, "classifier", inputs, [output], constants)
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())
    return path
