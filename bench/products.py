"""onnxruntime's own matrix product at the step's sizes: what this machine can do at most."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bundle.manifest import Manifest


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


def step_matrices(manifest: Manifest) -> list[tuple[int, int]]:
    """(outer, inner) of each matrix that a step multiplies a row by.

    Embeddings are looked up and biases are added: neither is a product.
    """
    return [
        (tensor.shape[-2], tensor.shape[-1])
        for name, tensor in manifest.weights.tensors.items()
        if tensor.dtype == "float32" and len(tensor.shape) > 1 and tensor.shape[-2] > 1
        if "embedding" not in name
    ]
