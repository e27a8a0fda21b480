"""Recurrent layers as custom operators that become one ONNX LSTM, GRU or RNN node each.

Traced as they are, PyTorch's recurrent modules unroll into slices with a frozen time axis. The
operators here take weights in ONNX's own layout, so nothing is left to fold or transpose.
Layout: ONNX operators LSTM-14, GRU-14 and RNN-14, layout 0 (time first).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op
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


@torch.library.custom_op("unroll::rnn", mutates_args=())
def rnn(
    x: Tensor, lengths: Tensor | None, h: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    raise NotImplementedError("unroll::rnn is for export; run the PyTorch model instead")


@gru.register_fake
@rnn.register_fake
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


def _onnx_lstm(x: Any, lengths: Any, h: Any, c: Any, w: Any, r: Any, b: Any) -> Any:
    return op.LSTM(x, w, r, b, lengths, h, c, **_sizes(r))


def _onnx_gru(x: Any, lengths: Any, h: Any, w: Any, r: Any, b: Any) -> Any:
    # PyTorch applies the reset gate after the recurrent product.
    return op.GRU(x, w, r, b, lengths, h, linear_before_reset=1, **_sizes(r))


def _onnx_rnn(x: Any, lengths: Any, h: Any, w: Any, r: Any, b: Any) -> Any:
    return op.RNN(x, w, r, b, lengths, h, **_sizes(r))


TRANSLATION_TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.unroll.lstm.default: _onnx_lstm,
    torch.ops.unroll.gru.default: _onnx_gru,
    torch.ops.unroll.rnn.default: _onnx_rnn,
}

OPSET = 18

__all__ = ["OPSET", "TRANSLATION_TABLE", "gru", "lstm", "rnn"]
