"""A trained model's weights in ONNX's layout, and back: the only place that knows both.

PyTorch orders an LSTM's gates i, f, g, o and ONNX i, o, f, c; a GRU's r, z, n and z, r, h. A
linear layer is stored as (in, out), the way a matrix product reads it. A large embedding or linear
layer that half precision holds exactly is stored in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn.functional import embedding

from export import operators
from training.models import Model
from training.models.cells import State
from training.models.embedding import LARGE
from training.models.layers import (
    FusedLayer,
    Layer,
    Step,
    UnrolledLayer,
    from_directions,
    to_directions,
)

# ONNX's gates as indices into PyTorch's.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
_SUFFIXES = ("", "_reverse")


def for_export(model: Model) -> nn.Module:
    """A copy of ``model`` whose layers hold their weights as graphs do.

    Its state_dict is the bundle's weights file.
    """
    copy = deepcopy(model).eval().requires_grad_(False)
    for name, module in list(copy.named_modules()):
        if isinstance(module, FusedLayer):
            copy.set_submodule(name, ExportedRecurrentLayer(module))
        elif isinstance(module, UnrolledLayer):
            copy.set_submodule(name, ScannedLayer(module))
        elif isinstance(module, nn.Linear):
            copy.set_submodule(name, ExportedLinear(module))
        elif isinstance(module, nn.Embedding) and _is_half(module.weight):
            copy.set_submodule(name, HalfEmbedding(module))
    return copy


def _is_half(weight: Tensor) -> bool:
    """Whether it is large and half precision loses nothing of it."""
    return weight.numel() >= LARGE and torch.equal(weight.half().float(), weight)


def to_pytorch(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of ``model`` from the tensors of a weights file; the inverse of for_export."""
    weights: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, FusedLayer):
            weights.update(_unfold_recurrent(module, name, tensors))
        elif isinstance(module, nn.Linear):
            weights[f"{name}.weight"] = tensors[f"{name}.weight"].float().T.contiguous()
            if module.bias is not None:
                weights[f"{name}.bias"] = tensors[f"{name}.bias"]
        elif isinstance(module, nn.Embedding):
            weights[f"{name}.weight"] = tensors[f"{name}.weight"].float()
    # What is left belongs to no layer: it has one layout.
    own = model.state_dict()
    return weights | {name: tensors[name] for name in own if name not in weights}


class HalfEmbedding(nn.Module):
    """An embedding whose table is float16; its rows are float32, as of the table it was."""

    weight: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("weight", table.weight.detach().half())

    def forward(self, tokens: Tensor) -> Tensor:
        return embedding(tokens, self.weight).float()


class ExportedLinear(nn.Module):
    """weight: (in, out), float16 where that is exact; a session makes it float32 at its start."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().T.contiguous()
        self.register_buffer("weight", weight.half() if _is_half(weight) else weight)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self.weight.float()
        return product if self.bias is None else product + self.bias


def scanned(
    step: Step, carry: State, inputs: Sequence[Tensor], reverse: bool = False
) -> tuple[State, Tensor]:
    """training.models.layers.unroll as one ONNX Scan over the body of ``step``."""
    after, outputs = scan(step, carry, tuple(inputs), reverse=reverse)
    return after, outputs


class ScannedLayer(UnrolledLayer):
    """UnrolledLayer whose steps are the body of a Scan: ONNX has no operator for its cell."""

    def __init__(self, layer: UnrolledLayer) -> None:
        nn.Module.__init__(self)
        self.options = layer.options
        self.directions = layer.directions

    def unroll(
        self, step: Step, carry: State, inputs: Sequence[Tensor], reverse: bool
    ) -> tuple[State, Tensor]:
        return scanned(step, carry, inputs, reverse)


class ExportedRecurrentLayer(Layer):
    """FusedLayer as one custom operator, with the same call.

    w, r, b: as export.operators has them.
    """

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, layer: FusedLayer) -> None:
        super().__init__()
        self.options = layer.options
        network, cell = layer.network, layer.options.cell
        suffixes = _SUFFIXES[: 2 if layer.options.bidirectional else 1]
        parts: dict[str, list[Tensor]] = {"w": [], "r": [], "b": []}
        for suffix in suffixes:
            w, r, bw, br = (
                _reorder(getattr(network, f"{kind}_l0{suffix}").detach(), _GATES[cell])
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            parts["w"].append(w)
            parts["r"].append(r)
            parts["b"].append(torch.cat((bw, br)))
        for name, rows in parts.items():
            self.register_buffer(name, torch.stack(rows))

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        native = tuple(to_directions(part, self.options) for part in state)
        counts = None if lengths is None else lengths.to(torch.int32)
        operator = getattr(operators, self.options.cell)
        y, *final = operator(x.transpose(0, 1), counts, *native, self.w, self.r, self.b)
        # (time, directions, batch, hidden) → (batch, time, directions * hidden)
        outputs = y.permute(2, 0, 1, 3).flatten(2)
        return outputs, tuple(from_directions(part) for part in final)


def _unfold_recurrent(
    layer: FusedLayer, name: str, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    gates = _GATES[layer.options.cell]
    back = tuple(gates.index(gate) for gate in range(len(gates)))
    w, r, b = (tensors[f"{name}.{part}"] for part in ("w", "r", "b"))
    weights = {}
    for direction, suffix in enumerate(_SUFFIXES[: len(w)]):
        bw, br = b[direction].chunk(2)
        for kind, tensor in (
            ("weight_ih", w[direction]),
            ("weight_hh", r[direction]),
            ("bias_ih", bw),
            ("bias_hh", br),
        ):
            weights[f"{name}.network.{kind}_l0{suffix}"] = _reorder(tensor, back)
    return weights


def _reorder(tensor: Tensor, gates: tuple[int, ...]) -> Tensor:
    """The blocks of ``tensor``'s first axis, one a gate, in another order."""
    blocks = tensor.chunk(len(gates))
    return torch.cat([blocks[gate] for gate in gates])
