"""The recurrent layers every model is built from, with their state in plain sight.

State is a flat tuple of tensors, one (batch, directions * hidden_size) tensor for each layer's
h and, for an LSTM, c: (h_0, c_0, h_1, c_1, …). Nothing is kept on a module between calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = tuple[Tensor, ...]

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class OptionInvalid(ValueError):
    """A model option that cannot be built; the message lists what can."""


@dataclass(frozen=True)
class RecurrentOptions:
    """What a stack of recurrent layers is made of.

    dropout: share of a layer's output that is dropped between layers while training.

    Raises OptionInvalid for a cell that does not exist or sizes below one.
    """

    cell: str = "lstm"
    hidden_size: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise OptionInvalid(f"cell {self.cell!r} is not one of {', '.join(CELLS)}")
        if self.hidden_size < 1 or self.layers < 1:
            raise OptionInvalid("hidden_size and layers are at least 1")

    @property
    def output_size(self) -> int:
        return self.hidden_size * (2 if self.bidirectional else 1)

    @property
    def tensors_per_layer(self) -> int:
        return 2 if self.cell == "lstm" else 1


class RecurrentLayer(nn.Module):
    """One layer of one cell kind over one or both directions."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        self.input_size = input_size
        self.network = CELLS[options.cell](
            input_size, options.hidden_size, batch_first=True, bidirectional=options.bidirectional
        )
        if options.cell == "lstm":
            _open_forget_gates(self.network)

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        """Run over (batch, time, input_size) from ``state``.

        lengths: (batch,) steps that count in each row; None when every row is full. The
        output is zero after a row's length and its final state is the one at its length.

        Returns the outputs (batch, time, directions * hidden_size) and the final state.
        """
        native = tuple(to_directions(part, self.options) for part in state)
        carried = native if len(native) > 1 else native[0]
        if lengths is None:
            y, final = self.network(x, carried)
        else:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            y, final = self.network(packed, carried)
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        final = final if isinstance(final, tuple) else (final,)
        return y, tuple(from_directions(part) for part in final)


def _open_forget_gates(network: nn.RNNBase) -> None:
    """Start an LSTM's forget gates open (Jozefowicz, Zaremba and Sutskever 2015, section 2.2)."""
    for name, bias in network.named_parameters():
        if name.startswith("bias_ih"):
            _, forget, _, _ = bias.data.chunk(4)
            forget.fill_(1.0)


def to_directions(part: Tensor, options: RecurrentOptions) -> Tensor:
    """(batch, directions * hidden) → (directions, batch, hidden)"""
    if not options.bidirectional:
        return part.unsqueeze(0)
    return part.unflatten(1, (2, options.hidden_size)).transpose(0, 1).contiguous()


def from_directions(part: Tensor) -> Tensor:
    """(directions, batch, hidden) → (batch, directions * hidden)"""
    return part.squeeze(0) if part.shape[0] == 1 else part.transpose(0, 1).flatten(1)


class RecurrentStack(nn.Module):
    """Layers on top of each other; the lecture's deep RNN (a)."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        sizes = [input_size] + [options.output_size] * (options.layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(options, size) for size in sizes)
        self.dropout = nn.Dropout(options.dropout)

    def zero_state(self, batch: int, like: Tensor) -> State:
        """The state before the first step, on the device and of the type of ``like``."""
        count = self.options.layers * self.options.tensors_per_layer
        size = (batch, self.options.output_size)
        zeros = torch.zeros(size, device=like.device, dtype=like.dtype)
        return (zeros,) * count

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Shapes as RecurrentLayer.forward; ``state`` holds every layer's tensors in order."""
        state = self.zero_state(x.shape[0], x) if state is None else state
        width = self.options.tensors_per_layer
        after: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x = x if number == 0 else self.dropout(x)
            x, final = layer(x, state[number * width : (number + 1) * width], lengths)
            after.extend(final)
        return x, tuple(after)
