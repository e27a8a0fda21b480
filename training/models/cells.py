"""The cells: what one step of a recurrent layer computes, written out.

A cell enters its input (everything that does not wait for the step before) and then steps, so
that a layer can enter a whole sequence with one matrix product. ``U`` is the linear map of the
input with the bias b, ``W`` that of the hidden state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Cell(nn.Module):
    """gates: how many blocks of hidden_size rows U and W have."""

    gates: int

    def __init__(self, input_size: int, hidden_size: int, hidden_bias: bool = False) -> None:
        super().__init__()
        self.U = nn.Linear(input_size, self.gates * hidden_size)
        self.W = nn.Linear(hidden_size, self.gates * hidden_size, bias=hidden_bias)
        # The range that PyTorch's own recurrent modules start from.
        bound = 1 / math.sqrt(hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def enter(self, x: Tensor) -> Tensor:
        """x (…, input) → b + U x (…, gates * hidden)"""
        entered: Tensor = self.U(x)
        return entered

    def step(self, entered: Tensor, state: State) -> State:
        """entered (batch, gates * hidden), state of (batch, hidden) each → the next state"""
        raise NotImplementedError


class PlainCell(Cell):
    """a = b + W h + U x, h = tanh(a): the recurrent hidden units of the lecture."""

    gates = 1

    def step(self, entered: Tensor, state: State) -> State:
        (h,) = state
        a = entered + self.W(h)
        return (torch.tanh(a),)


class GRUCell(Cell):
    """Gates r, z and candidate n; the reset gate after the recurrent product.

    Cho et al. 2014, arXiv:1406.1078, in the form of PyTorch's GRU.
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, hidden_bias=True)

    def step(self, entered: Tensor, state: State) -> State:
        (h,) = state
        x_r, x_z, x_n = entered.chunk(3, dim=1)
        h_r, h_z, h_n = self.W(h).chunk(3, dim=1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return (n + z * (h - n),)


class LSTMCell(Cell):
    """Gates i, f, o and candidate g; Gers, Schmidhuber and Cummins 2000.

    Forget gates start open (Jozefowicz, Zaremba and Sutskever 2015, section 2.2).
    """

    gates = 4

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U.bias.data[hidden_size : 2 * hidden_size] = 1.0

    def step(self, entered: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (entered + self.W(h)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Mlp(nn.Module):
    """``depth`` tanh layers of one size; depth 0 changes nothing.

    skip: what entered is added to what leaves, so that there is a path around the layers.
    """

    def __init__(self, size: int, depth: int, skip: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size) for _ in range(depth))
        self.skip = skip and depth > 0

    def forward(self, x: Tensor) -> Tensor:
        """x (…, size) → (…, size)"""
        y = x
        for layer in self.layers:
            y = torch.tanh(layer(y))
        return x + y if self.skip else y


CELLS: dict[str, type[Cell]] = {"rnn": PlainCell, "gru": GRUCell, "lstm": LSTMCell}
