"""onnxruntime's own matrix product at the step's sizes: what this machine can do at most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# Operators with weights of (directions, outer, inner), and of (inner, outer).
_RECURRENT = ("LSTM", "GRU", "RNN")
_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class ProductRound:
    gflops: float  # 10⁹ additions and multiplications a second


class Product:
    """(rows, inner) × (inner, outer) on one thread, the weights constant, so prepacked."""

    def __init__(self, rows: int, inner: int, outer: int) -> None:
        self._flops = 2 * rows * inner * outer
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            _model(inner, outer), options, providers=["CPUExecutionProvider"]
        )
        self._left = np.random.default_rng(0).standard_normal((rows, inner), np.float32)
        self._out = np.zeros((rows, outer), np.float32)
        self._binding = self._session.io_binding()
        for name, array, bind in (
            ("left", self._left, self._binding.bind_input),
            ("product", self._out, self._binding.bind_output),
        ):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def run(self, seconds: float) -> ProductRound:
        self._session.run_with_iobinding(self._binding)
        runs, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            self._session.run_with_iobinding(self._binding)
            runs += 1
        return ProductRound(1e-9 * runs * self._flops / elapsed)


def _model(inner: int, outer: int) -> bytes:
    right = np.random.default_rng(1).standard_normal((inner, outer), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, ["rows", inner])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["rows", outer])],
        [numpy_helper.from_array(right, "right")],
    )
    opset = [helper.make_opsetid("", 18)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return model.SerializeToString()


def step_matrices(path: Path) -> list[tuple[int, int]]:
    """(outer, inner) of each weight matrix that the graph in ``path`` multiplies a row by.

    Embeddings and tables are looked up and biases are added: neither is a product.
    """
    graph = onnx.load(path, load_external_data=False).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type in (*_RECURRENT, *_PRODUCTS):
            sides = [shapes[name][-2:] for name in node.input if len(shapes.get(name, ())) > 1]
            ordered = sides if node.op_type in _RECURRENT else [side[::-1] for side in sides]
            found += [(outer, inner) for outer, inner in ordered if min(outer, inner) > 1]
    return found
