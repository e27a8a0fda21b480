"""The int8 form of a step: products in whole numbers, everything between them in float32.

What enters a product is a hidden state, a tanh or an average of hidden states: it lies in
[-1, 1], so its scale is 1/127 whatever the data, and no row's rounding depends on another row.
What is not bounded (embeddings, cell states, attention scores) enters no such product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding as row_of

from export.operators import quantized_product
from export.weights import ExportedLinear, ExportedRecurrentLayer, ScannedLayer
from training.models.cells import State
from training.models.generator import Generator
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2Seq, attention, query_scale

# Seven bits: a CPU without VNNI adds two products of 255 * 63 in 16 bits and does not saturate.
WEIGHT_LIMIT = 63

# A table of the first layer's input products holds a row a symbol: characters and phones take
# kilobytes, words would take more than the products that the table saves.
_TABLE_LIMIT_BYTES = 64 * 1024 * 1024


class NoInt8Step(ValueError):
    """A model that int8 does not cover; the message says why."""


def quantised(exported: nn.Module) -> nn.Module:
    """The int8 step of ``exported``, a generator or sequence-to-sequence model made for export.

    Its state_dict is what the weights file holds beside the fp32 tensors; its ``step`` has the
    call of the model's own.

    Raises NoInt8Step for another model, for a deeper cell, whose sums and MLPs are not bounded,
    and for a vocabulary whose table would be too large.
    """
    if isinstance(exported, Generator):
        return QuantisedGenerator(exported.stack, exported.embedding, exported.output)
    if isinstance(exported, Seq2Seq) and exported.config.attention:
        return QuantisedSeq2Seq(exported)
    if isinstance(exported, Seq2Seq):
        # All that it knows of the source is its first state, of one tanh layer each.
        return QuantisedGenerator(exported.decoder, exported.target_embedding, exported.output)
    raise NoInt8Step(f"a {type(exported).__name__.lower()} has no step, so it has no int8")


class QuantisedGenerator(nn.Module):
    """Of a generator, or of a decoder that looks back at nothing."""

    def __init__(self, stack: Any, embedding: Any, output: Any) -> None:
        super().__init__()
        self.stack = QuantisedStack(stack, embedding)
        self.output = QuantisedLinear.of(output)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        features, after = self.stack(token, state)
        return self.output(features), after


class QuantisedSeq2Seq(nn.Module):
    """Attention scores and the average over the memory stay float32."""

    def __init__(self, exported: Any) -> None:
        super().__init__()
        self.decoder = QuantisedStack(exported.decoder, exported.target_embedding)
        self.query = QuantisedLinear.of(exported.query)
        self.combine = QuantisedLinear.of(exported.combine)
        self.output = QuantisedLinear.of(exported.output)
        self.query_scale = query_scale(exported.config)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        logits, after, _ = self.step_with_attention(token, state)
        return logits, after

    def step_with_attention(self, token: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """As training.models.seq2seq.Seq2Seq's."""
        memory, memory_mask, *carried = state
        features, after = self.decoder(token, tuple(carried))
        query = self.query(features).unsqueeze(1)
        weights = attention(query, memory, memory_mask, self.query_scale)
        context = (weights @ memory).squeeze(1)
        combined = torch.tanh(self.combine(torch.cat((features, context), dim=1)))
        return self.output(combined), (memory, memory_mask, *after), weights.squeeze(1)


class QuantisedLinear(nn.Module):
    """x (batch, in) within [-1, 1] → (batch, out); column j of the weights is scale_j * weight_j.

    weight: (in, out) int8, what is beyond ±WEIGHT_LIMIT cut to it. scale: (out,) float32.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = _scale_of(weight)
        self.register_buffer("weight", _whole(weight, scale).to(torch.int8).contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.clone())

    @classmethod
    def of(cls, linear: ExportedLinear) -> QuantisedLinear:
        return cls(linear.weight.float(), linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return quantized_product(x, self.weight, self.scale, self.bias)


# Of a column's largest weight, what the largest whole number may stand for.
_SHARES = [hundredths / 100 for hundredths in range(50, 101, 2)]


def _scale_of(weight: Tensor) -> Tensor:
    """weight (in, out) → (out,) the scale of each column that loses the least, in squares.

    A column's few large weights would make the steps of all its others coarse (Banner, Nahshan and
    Soudry 2019, arXiv:1810.05723).
    """
    largest = weight.abs().amax(dim=0)
    largest[largest == 0] = WEIGHT_LIMIT
    scales = torch.stack([largest * share / WEIGHT_LIMIT for share in _SHARES])
    lost = [(_whole(weight, scale) * scale - weight).double().square().sum(0) for scale in scales]
    best = torch.stack(lost).argmin(dim=0)
    return scales.gather(0, best.unsqueeze(0)).squeeze(0)


def _whole(weight: Tensor, scale: Tensor) -> Tensor:
    return torch.round(weight / scale).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)


@dataclass(frozen=True)
class _Weights:
    """A layer's weights as ONNX's operators have them: w (gates * hidden, input),
    r (gates * hidden, hidden), b (2 * gates * hidden,)."""

    options: RecurrentOptions
    w: Tensor
    r: Tensor
    b: Tensor


def _weights_of(layer: nn.Module) -> _Weights:
    if isinstance(layer, ExportedRecurrentLayer):
        return _Weights(layer.options, layer.w[0], layer.r[0], layer.b[0])
    if isinstance(layer, ScannedLayer) and layer.options.cell == "rnn":
        (direction,) = layer.directions
        tensors = direction.get_submodule("cell").state_dict()
        bias = tensors["U.bias"]
        both = torch.cat((bias, torch.zeros_like(bias)))
        return _Weights(layer.options, tensors["U.weight"].T, tensors["W.weight"].T, both)
    raise NoInt8Step(f"{type(layer).__name__} has no int8 form")


def _check_plain(options: RecurrentOptions) -> None:
    """Raises NoInt8Step where something unbounded would enter a product."""
    depth = options.input_mlp + options.transition_mlp + options.output_mlp
    if depth or options.skip or not options.carries_hidden:
        raise NoInt8Step(
            "int8 covers plain stacks: no MLPs, no skip connections, recurrence 'hidden'; "
            "export this model in fp32 alone"
        )


class QuantisedStack(nn.Module):
    """Forward layers over one step: token (batch,), state → the last h (batch, hidden), state."""

    def __init__(self, stack: Any, embedding: nn.Embedding) -> None:
        super().__init__()
        _check_plain(stack.options)
        self.width = stack.options.tensors_per_layer
        first, *upper = (_weights_of(layer) for layer in stack.layers)
        self.layers = nn.ModuleList(
            [
                _Layer(first, _FromTable(first, embedding)),
                *(_Layer(layer, _entrance(layer)) for layer in upper),
            ]
        )

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        after: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            own = state[number * self.width : (number + 1) * self.width]
            final = layer(x, own)
            x = final[0]
            after.extend(final)
        return x, tuple(after)


class _Layer(nn.Module):
    """entrance: makes the gates' pre-activations of what comes in and of the layer's own h."""

    def __init__(self, layer: _Weights, entrance: nn.Module) -> None:
        super().__init__()
        self.entrance = entrance
        self.cell = _CELLS[layer.options.cell]

    def forward(self, x: Tensor, state: State) -> State:
        return self.cell(self.entrance(x, state[0]), state)


class _FromTable(nn.Module):
    """token (batch,) → its row of embedding * input weights + biases, so no input product is left.

    table: (vocabulary, gates * hidden) float32.
    """

    table: Tensor

    def __init__(self, layer: _Weights, embedding: nn.Embedding) -> None:
        super().__init__()
        entering, recurrent = _biases(layer)
        weight = embedding.weight.detach().float()
        size = len(weight) * len(layer.w) * weight.element_size()
        if size > _TABLE_LIMIT_BYTES:
            raise NoInt8Step(
                f"{len(weight)} symbols make a table of {size:,} bytes, "
                f"an int8 step has at most {_TABLE_LIMIT_BYTES:,}"
            )
        self.register_buffer("table", _product_in_order(weight, layer.w.T) + entering)
        self.recurrent = QuantisedLinear(layer.r.T, recurrent)
        self.sums = layer.options.cell != "gru"

    def forward(self, token: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        entering, recurrent = row_of(token, self.table), self.recurrent(h)
        return (entering + recurrent,) if self.sums else (entering, recurrent)


class _Stacked(nn.Module):
    """x, h → [x; h] times [W; R] in one product: what enters and the state just add up."""

    def __init__(self, layer: _Weights) -> None:
        super().__init__()
        entering, _ = _biases(layer)
        self.gates = QuantisedLinear(torch.cat((layer.w, layer.r), dim=1).T, entering)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        return (self.gates(torch.cat((x, h), dim=1)),)


class _Apart(nn.Module):
    """x, h → two products: a GRU's reset gate lies between its candidate's two halves."""

    def __init__(self, layer: _Weights) -> None:
        super().__init__()
        entering, recurrent = _biases(layer)
        self.entering = QuantisedLinear(layer.w.T, entering)
        self.recurrent = QuantisedLinear(layer.r.T, recurrent)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        return self.entering(x), self.recurrent(h)


def _entrance(layer: _Weights) -> nn.Module:
    return _Apart(layer) if layer.options.cell == "gru" else _Stacked(layer)


def _biases(layer: _Weights) -> tuple[Tensor, Tensor | None]:
    """What is added to the input's product, and to the state's: a GRU's candidate needs both."""
    entering, recurrent = layer.b.chunk(2)
    if layer.options.cell != "gru":
        return entering + recurrent, None
    inside = torch.arange(len(recurrent)) >= 2 * layer.options.hidden_size
    zero = recurrent.new_zeros(())
    return entering + torch.where(inside, zero, recurrent), torch.where(inside, recurrent, zero)


def _product_in_order(left: Tensor, right: Tensor) -> Tensor:
    """left (n, k) @ right (k, m), summed in one order: the same bits on every machine.

    A library's product sums in an order of its own, and a bundle's bytes would depend on it.
    """
    total = torch.zeros(len(left), right.shape[1], dtype=torch.float64)
    for column, row in zip(left.double().T, right.double(), strict=True):
        total += column.unsqueeze(1) * row
    return total.float()


def _lstm(parts: tuple[Tensor, ...], state: State) -> State:
    """Gates i, o, f, c as ONNX's LSTM orders them: one sigmoid covers the first three."""
    (gates,), (_, c) = parts, state
    hidden = c.shape[1]
    open_, candidate = gates.split([3 * hidden, hidden], dim=1)
    i, o, f = torch.sigmoid(open_).split([hidden] * 3, dim=1)
    c = f * c + i * torch.tanh(candidate)
    return o * torch.tanh(c), c


def _gru(parts: tuple[Tensor, ...], state: State) -> State:
    """Gates z, r, h as ONNX's GRU with linear_before_reset."""
    (entering, recurrent), (h,) = parts, state
    hidden = h.shape[1]
    x_gates, x_candidate = entering.split([2 * hidden, hidden], dim=1)
    h_gates, h_candidate = recurrent.split([2 * hidden, hidden], dim=1)
    z, r = torch.sigmoid(x_gates + h_gates).split([hidden] * 2, dim=1)
    candidate = torch.tanh(x_candidate + r * h_candidate)
    return (candidate + z * (h - candidate),)


def _rnn(parts: tuple[Tensor, ...], state: State) -> State:
    return (torch.tanh(parts[0]),)


_CELLS: dict[str, Callable[[tuple[Tensor, ...], State], State]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn": _rnn,
}
