"""The transforms around DTLN's two networks, as graphs for a pipeline; and as its callers do them.

Westhausen and Meyer 2020, arXiv:2005.07551: blocks of 512 samples that move on by 128. The first
network masks the magnitudes of a block's spectrum, the second one filters the block that comes of
it, and blocks that overlap are added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BLOCK = 512
SHIFT = 128
BINS = BLOCK // 2 + 1

_OPSET = 11


def write_transforms(folder: Path) -> None:
    """``analysis.onnx``, ``synthesis.onnx`` and ``overlap.onnx`` into ``folder``."""
    angles = 2 * np.pi * np.outer(np.arange(BLOCK), np.arange(BINS)) / BLOCK
    _write(
        folder / "analysis.onnx",
        [
            ("MatMul", ["samples", "cosines"], "real", {}),
            ("MatMul", ["samples", "sines"], "imaginary", {}),
            ("Mul", ["real", "real"], "real_squared", {}),
            ("Mul", ["imaginary", "imaginary"], "imaginary_squared", {}),
            ("Add", ["real_squared", "imaginary_squared"], "power", {}),
            ("Sqrt", ["power"], "flat", {}),
            ("Unsqueeze", ["flat"], "magnitude", {"axes": [1]}),
        ],
        {"samples": ["batch", BLOCK]},
        {"magnitude": ["batch", 1, BINS], "real": ["batch", BINS], "imaginary": ["batch", BINS]},
        {"cosines": np.cos(angles), "sines": -np.sin(angles)},
    )
    # Of a real signal's spectrum all but the first and the last bin stand there twice.
    twice = np.full((BINS, 1), 2.0)
    twice[[0, -1]] = 1.0
    _write(
        folder / "synthesis.onnx",
        [
            ("Squeeze", ["mask"], "gains", {"axes": [1]}),
            ("Mul", ["gains", "real"], "masked_real", {}),
            ("Mul", ["gains", "imaginary"], "masked_imaginary", {}),
            ("MatMul", ["masked_real", "cosines"], "even", {}),
            ("MatMul", ["masked_imaginary", "sines"], "odd", {}),
            ("Add", ["even", "odd"], "flat", {}),
            ("Unsqueeze", ["flat"], "block", {"axes": [1]}),
        ],
        {"mask": ["batch", 1, BINS], "real": ["batch", BINS], "imaginary": ["batch", BINS]},
        {"block": ["batch", 1, BLOCK]},
        {
            "cosines": twice * np.cos(angles).T / BLOCK,
            "sines": -twice * np.sin(angles).T / BLOCK,
        },
    )
    _write(
        folder / "overlap.onnx",
        [
            ("Slice", ["buffer", "shift", "end", "axis"], "left", {}),
            ("Pad", ["left", "padding"], "moved", {}),
            ("Squeeze", ["block"], "flat", {"axes": [1]}),
            ("Add", ["moved", "flat"], "next_buffer", {}),
            ("Slice", ["next_buffer", "zero", "shift", "axis"], "denoised", {}),
        ],
        {"block": ["batch", 1, BLOCK], "buffer": ["batch", BLOCK]},
        {"denoised": ["batch", SHIFT], "next_buffer": ["batch", BLOCK]},
        {
            "shift": np.array([SHIFT]), "end": np.array([BLOCK]), "axis": np.array([1]),
            "zero": np.array([0]), "padding": np.array([0, 0, 0, SHIFT]),
        },
    )  # fmt: skip


def own_loop(first: Any, second: Any, samples: NDArray[Any]) -> NDArray[Any]:
    """As the authors run it: transforms in NumPy, a session each for the networks, two buffers.

    first, second: onnxruntime's sessions of model_1.onnx and model_2.onnx. samples: float32, a
    multiple of SHIFT; as many come back.
    """
    states = [np.zeros((1, 2, 128, 2), np.float32) for _ in range(2)]
    heard, spoken = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    found = []
    for part in samples.reshape(-1, SHIFT):
        heard = np.concatenate((heard[SHIFT:], part))
        spectrum = np.fft.rfft(heard)
        magnitude = np.abs(spectrum).astype(np.float32).reshape(1, 1, BINS)
        mask, states[0] = first.run(None, {"input_2": magnitude, "input_3": states[0]})
        block = np.fft.irfft(spectrum * mask.reshape(-1)).astype(np.float32).reshape(1, 1, BLOCK)
        filtered, states[1] = second.run(None, {"input_4": block, "input_5": states[1]})
        spoken = np.concatenate((spoken[SHIFT:], np.zeros(SHIFT, np.float32)))
        spoken = spoken + filtered.reshape(-1)
        found.append(spoken[:SHIFT])
    return np.concatenate(found)


def _write(
    path: Path,
    nodes: list[tuple[str, list[str], str, dict[str, Any]]],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    constants: dict[str, Any],
) -> None:
    """Constants: numbers as float32, whole numbers as int64."""

    def ports(shapes: dict[str, list[Any]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    held = [
        numpy_helper.from_array(
            value.astype(np.float32 if value.dtype.kind == "f" else np.int64), name
        )
        for name, value in constants.items()
    ]
    made = [helper.make_node(kind, given, [out], **rest) for kind, given, out, rest in nodes]
    graph = helper.make_graph(made, path.stem, ports(inputs), ports(outputs), held)
    opset = [helper.make_opsetid("", _OPSET)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
