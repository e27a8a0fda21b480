"""Custom operators: recurrent layers, one ONNX LSTM or GRU node each, and the int8 product.

Traced as they are, PyTorch's recurrent modules unroll into slices with a frozen time axis. The
operators here take weights in ONNX's own layout, so nothing is left to fold or transpose.
Layout: ONNX operators LSTM-14 and GRU-14, layout 0 (time first).

The plain cell has an ONNX operator too, RNN-14, but onnxruntime's gives a row other bits in other
batches, so it is exported as its step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import TensorProto, helper
from onnx.defs import OpSchema
from onnxscript import opset18 as op
from onnxscript import values
from torch import Tensor

# Shapes, D directions and G gates: x (time, batch, input), lengths (batch,) int32,
# h, c (D, batch, hidden), w (D, G * hidden, input), r (D, G * hidden, hidden),
# b (D, 2 * G * hidden); y (time, D, batch, hidden).


@torch.library.custom_op("unroll::lstm", mutates_args=())
def lstm(
    x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    raise NotImplementedError("unroll::lstm is for export; run the PyTorch model instead")


@lstm.register_fake
def _(
    x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, h), h.new_empty(h.shape), c.new_empty(c.shape)


@torch.library.custom_op("unroll::gru", mutates_args=())
def gru(
    x: Tensor, lengths: Tensor | None, h: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    raise NotImplementedError("unroll::gru is for export; run the PyTorch model instead")


@gru.register_fake
def _(
    x: Tensor, lengths: Tensor | None, h: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    return _outputs(x, h), h.new_empty(h.shape)


def _outputs(x: Tensor, h: Tensor) -> Tensor:
    directions, batch, hidden = h.shape
    return x.new_empty((x.shape[0], directions, batch, hidden))


def _sizes(r: Any) -> dict[str, Any]:
    """hidden_size and direction, read off the recurrent weights."""
    directions, _, hidden = r.shape
    return {
        "hidden_size": int(hidden),
        "direction": "bidirectional" if int(directions) == 2 else "forward",
    }


# What a product's float32 input is divided by, and the whole number that then stands for zero.
INPUT_SCALE = 1 / 127
INPUT_ZERO = 128


@torch.library.custom_op("unroll::quantized_product", mutates_args=())
def quantized_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (batch, in) float32 in [-1, 1] as uint8, times weight (in, out) int8, as float32.

    scale: (out,) of each column of the weights. bias: (out,).
    """
    step = torch.tensor(INPUT_SCALE, dtype=torch.float32)
    whole = torch.round(x / step).clamp(-INPUT_ZERO, 255 - INPUT_ZERO)
    # Sums of whole numbers below 2 ** 53: float64 holds each exactly, in any order.
    product = (whole.double() @ weight.double()).float() * (scale * step)
    return product if bias is None else product + bias


@quantized_product.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1]))


# The draw of a token (export/sampler.py): a function that a step graph brings with it.
DRAW_DOMAIN, DRAW = "unroll", "Draw"


@torch.library.custom_op("unroll::draw_token", mutates_args=())
def draw_token(
    logits: Tensor, suppressed: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor,
    min_p: Tensor, typical_p: Tensor, repetition: Tensor, uniform: Tensor, retries: Tensor,
    adjusted: Tensor, seen: Tensor, bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What export/sampler.py registers for it: its twin in NumPy."""
    raise NotImplementedError("unroll::draw_token is computed by export.sampler")


@draw_token.register_fake
def _(logits: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = logits.shape[:1]
    return logits.new_empty(rows, dtype=torch.int64), logits.new_empty(rows), logits.clone()


def _onnx_lstm(x: Any, lengths: Any, h: Any, c: Any, w: Any, r: Any, b: Any) -> Any:
    return op.LSTM(x, w, r, b, lengths, h, c, **_sizes(r))


def _onnx_gru(x: Any, lengths: Any, h: Any, w: Any, r: Any, b: Any) -> Any:
    # PyTorch applies the reset gate after the recurrent product.
    return op.GRU(x, w, r, b, lengths, h, linear_before_reset=1, **_sizes(r))


def _draw_operator() -> values.Op:
    """The function as the exporter knows it, by the names of the operator in PyTorch."""
    kinds = {"top_k": "int64", "adjusted": "int64", "seen": "bool"}
    given = [parameter.name for parameter in _DRAW_SCHEMA.arguments]
    schema = OpSchema(
        DRAW,
        DRAW_DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter(n, f"tensor({kinds.get(n, 'float')})") for n in given],
        outputs=[
            OpSchema.FormalParameter(f"drawn_{place}", f"tensor({kind})")
            for place, kind in enumerate(("int64", "float", "float"))
        ],
    )
    return values.Op(values.Opset(DRAW_DOMAIN, 1), DRAW, schema)


def _microsoft_operator(name: str, inputs: Sequence[tuple[str, str]]) -> values.Op:
    """An operator of onnxruntime's own that ``onnx`` has no schema of.

    inputs: name and type of each; a name that ends with ``?`` may be left out.
    """
    given = OpSchema.FormalParameterOption
    schema = OpSchema(
        name,
        "com.microsoft",
        1,
        inputs=[
            OpSchema.FormalParameter(
                part.rstrip("?"),
                f"tensor({kind})",
                param_option=given.Optional if part.endswith("?") else given.Single,
            )
            for part, kind in inputs
        ],
        outputs=[OpSchema.FormalParameter("Y", "tensor(float)")],
    )
    return values.Op(values.Opset("com.microsoft", 1), name, schema)


# onnxruntime's ContribOperators.md, with the types used here.
_product_to_float = _microsoft_operator(
    "MatMulIntegerToFloat",
    (
        ("A", "uint8"), ("B", "int8"), ("a_scale", "float"), ("b_scale", "float"),
        ("a_zero_point?", "uint8"), ("b_zero_point?", "int8"), ("bias?", "float"),
    ),
)  # fmt: skip


def _onnx_quantized_product(x: Any, weight: Any, scale: Any, bias: Any = None) -> Any:
    # uint8 times int8 is the pair that onnxruntime has fast kernels for, on every x86 CPU.
    step: Any = op.Constant(value_float=INPUT_SCALE)
    zero: Any = op.Constant(value=helper.make_tensor("zero", TensorProto.UINT8, (), [INPUT_ZERO]))
    whole = op.QuantizeLinear(x, step, zero)
    return _product_to_float(whole, weight, step, scale, zero, None, bias)


_DRAW_SCHEMA = torch.ops.unroll.draw_token.default._schema
_draw = _draw_operator()


def _onnx_draw(*inputs: Any) -> Any:
    return _draw(*inputs)


TRANSLATION_TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.unroll.lstm.default: _onnx_lstm,
    torch.ops.unroll.gru.default: _onnx_gru,
    torch.ops.unroll.quantized_product.default: _onnx_quantized_product,
    torch.ops.unroll.draw_token.default: _onnx_draw,
}


__all__ = [
    "DRAW", "DRAW_DOMAIN", "TRANSLATION_TABLE", "draw_token", "gru", "lstm",
    "quantized_product",
]  # fmt: skip
