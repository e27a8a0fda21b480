"""The graph that moves streams between rows of a state that lies on a device.

onnxruntime runs graphs on a device and copies whole tensors, but gathers no rows by itself.
Built node by node: there is no module behind it to trace, and no number in it to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from bundle.manifest import ROWS, GraphSpec, StateTensor, TensorSpec, rows_index, rows_ports
from export.opset import OPSET

# The format that the exporter writes the other graphs in.
_IR_VERSION = 10


def write_rows_graph(state: tuple[StateTensor, ...], folder: Path) -> GraphSpec:
    """Write ``rows.onnx`` for a stream's ``state`` into ``folder``."""
    inputs, outputs = rows_ports(state)
    nodes = [node for tensor in state for node in _nodes(tensor)]
    graph = helper.make_graph(nodes, ROWS, _values(inputs), _values(outputs))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION
    )
    file = f"{ROWS}.onnx"
    (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(folder / file), full_check=True)
    return GraphSpec(file, inputs, outputs)


def _nodes(tensor: StateTensor) -> Sequence[onnx.NodeProto]:
    """next = Gather(Concat(current, incoming), index), each along the rows"""
    name, found = tensor.name, f"all_{tensor.name}"
    return (
        helper.make_node("Concat", [name, f"incoming_{name}"], [found], axis=0),
        helper.make_node("Gather", [found, rows_index(tensor)], [f"next_{name}"], axis=0),
    )


def _values(ports: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape
        )
        for port in ports
    ]
