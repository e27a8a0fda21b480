"""The recurrent stack every model is built from, with its state in plain sight.

State is a flat tuple of tensors, one (batch, directions * hidden_size) tensor for each layer's
h and, for an LSTM, c: (h_0, c_0, h_1, c_1, …). Nothing is kept on a module between calls.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.models.cells import Mlp, State
from training.models.dropout import make_dropout
from training.models.layers import Layer, make_layer
from training.models.options import RecurrentOptions


class RecurrentStack(nn.Module):
    """Layers on top of each other, with MLPs before and after them where the options ask."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        sizes = [input_size] + [options.output_size] * (options.layers - 1)
        self.entering = Mlp(input_size, options.input_mlp, options.skip)
        self.layers = nn.ModuleList(make_layer(options, size) for size in sizes)
        self.leaving = Mlp(options.output_size, options.output_mlp, options.skip)
        self.dropout = make_dropout(options.dropout, options.one_mask)

    def zero_state(self, batch: int, like: Tensor) -> State:
        """The state before the first step, on the device and of the type of ``like``."""
        count = self.options.layers * self.options.tensors_per_layer
        size = (batch, self.options.output_size)
        return tuple(torch.zeros(size, device=like.device, dtype=like.dtype) for _ in range(count))

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Shapes as Layer.forward; ``state`` holds every layer's tensors in order."""
        state = self.zero_state(x.shape[0], x) if state is None else state
        return self._through(x, state, lambda layer, below, carried: layer(below, carried, lengths))

    def read(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The outputs of forward() from the state of zeros, for models that need no final state."""

        def run(layer: Layer, below: Tensor, carried: State) -> tuple[Tensor, State]:
            return layer.read(below, carried, lengths), ()

        return self._through(x, self.zero_state(x.shape[0], x), run)[0]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (batch, input_size) → output (batch, hidden_size), state; one direction."""
        return self._through(x, state, lambda layer, below, carried: layer.step(below, carried))

    def _through(
        self,
        x: Tensor,
        state: State,
        run: Callable[[Layer, Tensor, State], tuple[Tensor, State]],
    ) -> tuple[Tensor, State]:
        x = self.entering(x)
        width = self.options.tensors_per_layer
        after: list[Tensor] = []
        layers = (layer for layer in self.layers if isinstance(layer, Layer))
        for number, layer in enumerate(layers):
            below = x if number == 0 else self.dropout(x)
            y, final = run(layer, below, state[number * width : (number + 1) * width])
            x = x + y if self.options.skip and number else y
            after.extend(final)
        return self.leaving(x), tuple(after)
