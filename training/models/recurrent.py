"""The recurrent layers every model is built from, with their state in plain sight.

State is a flat tuple of tensors, one (batch, directions * hidden_size) tensor for each layer's
h and, for an LSTM, c: (h_0, c_0, h_1, c_1, …). Nothing is kept on a module between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.models.cells import CELLS, Mlp, State

HIDDEN, OUTPUT, HIDDEN_AND_OUTPUT = "hidden", "output", "hidden_and_output"
RECURRENCES = (HIDDEN, OUTPUT, HIDDEN_AND_OUTPUT)

# Cells that PyTorch and ONNX run as one operator over a whole sequence.
_FUSED: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class OptionInvalid(ValueError):
    """A model option that cannot be built; the message lists what can."""


@dataclass(frozen=True)
class RecurrentOptions:
    """What a stack of recurrent layers is made of.

    recurrence: what of a step the next one reads: its ``hidden`` state, the ``output`` that was
        made of it, or both. Where the output is read, the model puts it beside the input.
    layers: stacked recurrent layers, the lecture's depth (a).
    input_mlp, transition_mlp, output_mlp: tanh layers between input and state, state and next
        state, state and output: depth (b); Pascanu et al. 2014, arXiv:1312.6026.
    skip: shortcuts around each of those and from layer to layer: depth (c).
    dropout: share of a layer's output that is dropped between layers while training.

    Raises OptionInvalid for what does not exist, and for what does not go together.
    """

    cell: str = "lstm"
    hidden_size: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    recurrence: str = HIDDEN
    input_mlp: int = 0
    transition_mlp: int = 0
    output_mlp: int = 0
    skip: bool = False

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise OptionInvalid(f"cell {self.cell!r} is not one of {', '.join(CELLS)}")
        if self.recurrence not in RECURRENCES:
            known = ", ".join(RECURRENCES)
            raise OptionInvalid(f"recurrence {self.recurrence!r} is not one of {known}")
        if self.hidden_size < 1 or self.layers < 1:
            raise OptionInvalid("hidden_size and layers are at least 1")
        if min(self._mlps) < 0:
            raise OptionInvalid("input_mlp, transition_mlp and output_mlp are at least 0")
        self._check_combination()

    def _check_combination(self) -> None:
        if self.reads_output and self.bidirectional:
            raise OptionInvalid(
                f"recurrence {self.recurrence!r} goes from left to right: what reads from the "
                "right has no output yet; choose recurrence 'hidden' or one direction"
            )
        if not self.carries_hidden and self.cell != "rnn":
            raise OptionInvalid(
                f"recurrence 'output' carries no hidden state, which the gates of {self.cell!r} "
                "are there for; choose cell 'rnn'"
            )
        if not self.carries_hidden and self.transition_mlp:
            raise OptionInvalid(
                "recurrence 'output' has no way from hidden state to hidden state for "
                "transition_mlp to deepen; leave it at 0"
            )
        if self.skip and self.layers == 1 and not any(self._mlps):
            raise OptionInvalid("skip has nothing to go around; add layers or an MLP, or leave it")

    @property
    def _mlps(self) -> tuple[int, int, int]:
        return self.input_mlp, self.transition_mlp, self.output_mlp

    @property
    def carries_hidden(self) -> bool:
        return self.recurrence != OUTPUT

    @property
    def reads_output(self) -> bool:
        return self.recurrence != HIDDEN

    @property
    def output_size(self) -> int:
        return self.hidden_size * (2 if self.bidirectional else 1)

    @property
    def tensors_per_layer(self) -> int:
        if not self.carries_hidden:
            return 0
        return 2 if self.cell == "lstm" else 1


def check_hidden_recurrence(options: RecurrentOptions, model: str, reason: str) -> None:
    """Raises OptionInvalid where a model could not feed its output back."""
    if options.reads_output:
        raise OptionInvalid(f"{model} has recurrence 'hidden' only: {reason}")


def check_one_direction(options: RecurrentOptions, model: str, reason: str) -> None:
    """Raises OptionInvalid where a model could not read from the right."""
    if options.bidirectional:
        raise OptionInvalid(f"{model} reads in one direction only: {reason}")


# carry, one step's inputs → the next carry, the step's output
Step = Callable[[State, State], tuple[State, Tensor]]


def unroll(
    step: Step, carry: State, inputs: Sequence[Tensor], reverse: bool = False
) -> tuple[State, Tensor]:
    """Apply one ``step`` along time: the same function, with the same weights, at every step.

    inputs: (time, batch, …) each. reverse: from the last step to the first.

    Returns the last carry and the outputs (time, batch, …), in the order of time.
    """
    times = range(len(inputs[0]))
    outputs = []
    for time in reversed(times) if reverse else times:
        carry, output = step(carry, tuple(part[time] for part in inputs))
        outputs.append(output)
    return carry, torch.stack(outputs[::-1] if reverse else outputs)


def inside(x: Tensor, lengths: Tensor) -> Tensor:
    """x (batch, time, …), lengths (batch,) → (batch, time) bool, true where a row still is.

    A running count rather than an arange: it keeps the time axis symbolic in an export.
    """
    ones = torch.ones_like(x[:, :, 0] if x.dim() > 2 else x, dtype=torch.int64)
    return ones.cumsum(dim=1) <= lengths.unsqueeze(1)


class Layer(nn.Module):
    """One layer of one cell kind over one or both directions."""

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        """Run over (batch, time, input_size) from ``state``.

        lengths: (batch,) steps that count in each row; None when every row is full. The
        output is zero after a row's length and its final state is the one at its length.

        Returns the outputs (batch, time, directions * hidden_size) and the final state.
        """
        raise NotImplementedError

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (batch, input_size), one direction → output (batch, hidden_size), state"""
        y, after = self(x.unsqueeze(1), state, None)
        return y.squeeze(1), after


class FusedLayer(Layer):
    """A GRU or LSTM layer that runs as one operator."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        self.input_size = input_size
        self.network = _FUSED[options.cell](
            input_size, options.hidden_size, batch_first=True, bidirectional=options.bidirectional
        )
        if options.cell == "lstm":
            _open_forget_gates(self.network)

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
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


class Direction(nn.Module):
    """A cell whose hidden state may go through an MLP before each step."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.cell = CELLS[options.cell](input_size, options.hidden_size)
        self.transition = Mlp(options.hidden_size, options.transition_mlp, options.skip)

    def step(self, entered: Tensor, state: State) -> State:
        h, *others = state
        after: State = self.cell.step(entered, (self.transition(h), *others))
        return after


class UnrolledLayer(Layer):
    """A layer whose step is written out: the plain cell, and any cell with a deeper transition."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        count = 2 if options.bidirectional else 1
        self.directions = nn.ModuleList(Direction(options, input_size) for _ in range(count))

    def _directions(self) -> list[Direction]:
        return [direction for direction in self.directions if isinstance(direction, Direction)]

    def unroll(
        self, step: Step, carry: State, inputs: Sequence[Tensor], reverse: bool
    ) -> tuple[State, Tensor]:
        return unroll(step, carry, inputs, reverse)

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        if lengths is None:
            lengths = x.new_full((len(x),), x.shape[1], dtype=torch.int64)
        mask = inside(x, lengths).transpose(0, 1).unsqueeze(2)
        native = [to_directions(part, self.options) for part in state]
        outputs, finals = [], []
        for number, direction in enumerate(self._directions()):
            own = tuple(part[number] for part in native)
            final, y = self._read(direction, x.transpose(0, 1), mask, own, reverse=number == 1)
            outputs.append(y.transpose(0, 1))
            finals.append(final)
        return torch.cat(outputs, dim=2), tuple(
            torch.cat(part, dim=1) for part in zip(*finals, strict=True)
        )

    def _read(
        self, direction: Direction, x: Tensor, mask: Tensor, state: State, reverse: bool
    ) -> tuple[State, Tensor]:
        """x (time, batch, input), mask (time, batch, 1) → final state, outputs (time, batch, size)

        Outside a row its state stays: read from the right, a row begins where its text ends.
        """

        def step(carry: State, inputs: State) -> tuple[State, Tensor]:
            entered, counts = inputs
            after = direction.step(entered, carry)
            kept = tuple(torch.where(counts, a, b) for a, b in zip(after, carry, strict=True))
            return kept, torch.where(counts, after[0], 0.0)

        return self.unroll(step, state, (direction.cell.enter(x), mask), reverse)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        (direction,) = self._directions()
        after = direction.step(direction.cell.enter(x), state)
        return after[0], after


class OutputFedLayer(Layer):
    """h = tanh(b + U x), where x holds the previous output: no weights from hidden to hidden.

    Without them no step waits for another once the outputs are known, as under teacher forcing.
    """

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.U = nn.Linear(input_size, options.hidden_size)

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        h = torch.tanh(self.U(x))
        return h if lengths is None else h * inside(x, lengths).unsqueeze(2), ()


def make_layer(options: RecurrentOptions, input_size: int) -> Layer:
    if not options.carries_hidden:
        return OutputFedLayer(options, input_size)
    if options.cell in _FUSED and not options.transition_mlp:
        return FusedLayer(options, input_size)
    return UnrolledLayer(options, input_size)


class RecurrentStack(nn.Module):
    """Layers on top of each other, with MLPs before and after them where the options ask."""

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        sizes = [input_size] + [options.output_size] * (options.layers - 1)
        self.entering = Mlp(input_size, options.input_mlp, options.skip)
        self.layers = nn.ModuleList(make_layer(options, size) for size in sizes)
        self.leaving = Mlp(options.output_size, options.output_mlp, options.skip)
        self.dropout = nn.Dropout(options.dropout)

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


__all__ = [
    "FusedLayer",
    "OptionInvalid",
    "OutputFedLayer",
    "RecurrentOptions",
    "RecurrentStack",
    "State",
    "UnrolledLayer",
    "unroll",
]
