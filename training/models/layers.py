"""Recurrent layers: a cell run along time, from either side, as one operator or step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import dropout
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.models.cells import CELLS, Mlp, State
from training.models.options import RecurrentOptions

# By the cells of FUSED.
_FUSED: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM}
_OPERATORS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"gru": torch.gru, "lstm": torch.lstm}
_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_SUFFIXES = ("", "_reverse")


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


def length_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """x (batch, time, …), lengths (batch,) → (batch, time) bool, true where a row still is.

    A running count rather than an arange: it keeps the time axis symbolic in an export.
    """
    ones = torch.ones_like(x[:, :, 0] if x.dim() > 2 else x, dtype=torch.int64)
    return ones.cumsum(dim=1) <= lengths.unsqueeze(1)


def reverse_padded(x: Tensor, lengths: Tensor) -> Tensor:
    """x (batch, time, size), each row's first ``lengths`` steps in reverse order."""
    times = torch.arange(x.shape[1], device=x.device)
    places = lengths.unsqueeze(1) - 1 - times
    places = torch.where(places >= 0, places, times)
    return x.gather(1, places.unsqueeze(2).expand_as(x))


class Layer(nn.Module):
    """One layer of one cell kind over one or both directions."""

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        """Run over (batch, time, input_size) from ``state``.

        lengths: (batch,) steps that count in each row; None when every row is full. The
        output is zero after a row's length and its final state is the one at its length.

        Returns the outputs (batch, time, directions * hidden_size) and the final state.
        """
        raise NotImplementedError

    def read(self, x: Tensor, state: State, lengths: Tensor) -> Tensor:
        """The outputs of forward(), for callers who need no final state."""
        return self(x, state, lengths)[0]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (batch, input_size), one direction → output (batch, hidden_size), state"""
        y, after = self(x.unsqueeze(1), state, None)
        return y.squeeze(1), after


class FusedLayer(Layer):
    """A GRU or LSTM layer that runs as one operator.

    While it trains, a share ``weight_drop`` of its weights from hidden to hidden is zero, the
    same at all steps of a call (Merity, Keskar and Socher 2017, arXiv:1708.02182, section 2).
    """

    def __init__(self, options: RecurrentOptions, input_size: int) -> None:
        super().__init__()
        self.options = options
        self.input_size = input_size
        self.trains_in_bfloat16 = False
        self.network = _FUSED[options.cell](
            input_size, options.hidden_size, batch_first=True, bidirectional=options.bidirectional
        )
        if options.cell == "lstm":
            _open_forget_gates(self.network)

    def forward(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        native = tuple(to_directions(part, self.options) for part in state)
        carried = native if len(native) > 1 else native[0]
        if lengths is None:
            y, final = self._run(x, carried)
        else:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            y, final = self._run(packed, carried)
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        final = final if isinstance(final, tuple) else (final,)
        return y, tuple(from_directions(part) for part in final)

    def read(self, x: Tensor, state: State, lengths: Tensor) -> Tensor:
        """Each direction over the padded rows, the second over turned ones: on a CPU that takes
        half the time of packed rows, but leaves no cell state at a row's end.
        """
        native = [to_directions(part, self.options) for part in state]
        weights, outputs = self._weights(), []
        for number, suffix in enumerate(_SUFFIXES[: len(native[0])]):
            own = [weights[f"{kind}_l0{suffix}"] for kind in _KINDS]
            carried = [part[number : number + 1] for part in native]
            y = self._run_one_way(reverse_padded(x, lengths) if number else x, carried, own)
            outputs.append(reverse_padded(y, lengths) if number else y)
        return torch.where(length_mask(x, lengths).unsqueeze(2), torch.cat(outputs, dim=2), 0.0)

    def _run(self, x: Any, carried: Any) -> tuple[Any, Any]:
        if not (isinstance(x, Tensor) and self._reads_in_bfloat16(x)):
            return self._call(x, carried)
        with torch.autocast("cpu", torch.bfloat16):
            y, final = self._call(x, carried)
        parts = final if isinstance(final, tuple) else (final,)
        return y.float(), tuple(part.float() for part in parts)

    def _call(self, x: Any, carried: Any) -> tuple[Any, Any]:
        if not self._drops:
            made: tuple[Any, Any] = self.network(x, carried)
            return made
        return functional_call(self.network, self._weights(), (x, carried))

    def _reads_in_bfloat16(self, x: Tensor) -> bool:
        return self.trains_in_bfloat16 and self.training and x.device.type == "cpu"

    def _run_one_way(self, x: Tensor, carried: list[Tensor], weights: list[Tensor]) -> Tensor:
        state = carried if self.options.cell == "lstm" else carried[0]
        run = _OPERATORS[self.options.cell]
        if not self._reads_in_bfloat16(x):
            return run(x, state, weights, True, 1, 0.0, self.training, False, True)[0]
        with torch.autocast("cpu", torch.bfloat16):
            return run(x, state, weights, True, 1, 0.0, True, False, True)[0].float()

    @property
    def _drops(self) -> bool:
        return self.training and self.options.weight_drop > 0

    def _weights(self) -> dict[str, Tensor]:
        """By PyTorch's names, as this call uses them."""
        weights: dict[str, Tensor] = dict(self.network.named_parameters())
        if not self._drops:
            return weights
        return {
            name: dropout(weight, self.options.weight_drop)
            if name.startswith("weight_hh")
            else weight
            for name, weight in weights.items()
        }


def run_in_bfloat16(model: nn.Module, wanted: bool) -> None:
    """Whether the fused layers of ``model`` read rows in bfloat16 while they train on a CPU, but
    for packed ones: the operator alone, for other shapes than its own products are slower in it.
    """
    for module in model.modules():
        if isinstance(module, FusedLayer):
            module.trains_in_bfloat16 = wanted


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
        mask = length_mask(x, lengths).transpose(0, 1).unsqueeze(2)
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
        return h if lengths is None else h * length_mask(x, lengths).unsqueeze(2), ()


def make_layer(options: RecurrentOptions, input_size: int) -> Layer:
    if not options.carries_hidden:
        return OutputFedLayer(options, input_size)
    if options.cell in _FUSED and not options.transition_mlp:
        return FusedLayer(options, input_size)
    return UnrolledLayer(options, input_size)
